"""Writes through the API as fast as it answers, and says what was acknowledged: L1 and L2 of the ledger.

    python -m tests.support.writer CONTEXT_FILE

Creates config maps written-0, written-1 and so on, a line `NAME REVISION` for each that was acknowledged, until one is
not.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import grpc

from podplane import context
from podplane.v1 import config_pb2
from tests.support.api import Api


def main(file: Path) -> None:
    target = context.read(file).context()
    authority = file.with_name("authority")
    authority.write_bytes(target.authority() or b"")
    with Api(target.server, authority, target.bearer()) as api:
        for number in itertools.count():
            made = config_pb2.ConfigMap(apiVersion="v1", kind="ConfigMap", data={"number": str(number)})
            made.metadata.name, made.metadata.namespace = f"written-{number}", "default"
            try:
                acknowledged = api.create(made)
            except grpc.RpcError:
                return
            print(acknowledged.metadata.name, acknowledged.metadata.resourceVersion, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A process that writes to a store and says what was acknowledged, until it is killed. Not a test: see test_sqlite.

    python -m tests.controlplane.store.killed_writer DIRECTORY RUN [BYTES]

Each line is `<writer> <number> <revision>`, printed once the transaction of `run/writer/number/{a,b,c}` has been
acknowledged. With BYTES no file may grow beyond that size: the disk's error, as the kernel gives it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

from controlplane.store.log import Write
from controlplane.store.sqlite import SqliteLog
from podplane.errors import Unavailable

WRITERS = 8
PARTS = "abc"


def transaction(run: str, writer: int, number: int) -> list[Write]:
    value = f"{run}/{writer}/{number}".encode() * 100
    return [Write(f"{run}/{writer}/{number}/{part}", value, 0) for part in PARTS]


async def write(log: SqliteLog, run: str, writer: int) -> None:
    number = 0
    while True:
        try:
            changes = await log.commit(transaction(run, writer, number))
        except Unavailable as error:
            os.write(2, f"{error}\n".encode())
            return
        os.write(1, f"{writer} {number} {changes[0].revision}\n".encode())
        number += 1


async def main() -> int:
    directory, run, *bound = sys.argv[1:]
    log = await SqliteLog.open(Path(directory))
    if bound:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(bound[0]), int(bound[0])))
    await asyncio.gather(*(write(log, run, writer) for writer in range(WRITERS)))
    reason = await log.failed
    try:
        await log.commit([Write("late", b"")])
    except Unavailable as error:
        return 3 if str(error) == reason else 4
    return 5


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""A real registry on loopback, filled with tiny images that the tests build themselves."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.archives import Entry, Packed, pack, write_layout


@dataclass
class Registry:
    """A registry that runs; `conf` is a registries.conf that permits it without TLS."""

    address: str
    storage: Path
    conf: Path
    base: Path
    process: subprocess.Popen[bytes]

    def push(self, name: str, layers: Sequence[Sequence[Entry]], config: dict[str, Any] | None = None) -> str:
        """Build and push an image; returns its full reference."""
        return self.push_packed(name, pack(layers, config))

    def push_packed(self, name: str, packed: Packed) -> str:
        layout = self.base / f"layout-{time.monotonic_ns()}"
        write_layout(layout, packed)
        target = f"{self.address}/{name}"
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{target}"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        return target

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(base: Path) -> Iterator[Registry]:
    port = free_port()
    config = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(base / "storage")}},
              "http": {"addr": f"127.0.0.1:{port}"}, "log": {"level": "error"}}  # fmt: skip
    (base / "registry.yml").write_text(json.dumps(config))
    conf = base / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
    with (base / "registry.log").open("wb") as log:
        argv = ["docker-registry", "serve", str(base / "registry.yml")]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    registry = Registry(f"127.0.0.1:{port}", base / "storage", conf, base, process)
    try:
        _answers(port, process)
        yield registry
    finally:
        registry.stop()


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)

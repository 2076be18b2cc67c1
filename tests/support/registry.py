"""Debian's docker-registry on an address of the test's own, and the registries.conf that mirrors to it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.support.images import Recipe, layout
from tests.support.waiting import eventually

CONFIG = """version: 0.1
storage:
  filesystem:
    rootdirectory: {storage}
http:
  addr: {address}:{port}
log:
  level: error
"""

MIRROR = """unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "{address}:{port}"
insecure = true
"""


class Registry:
    """A running registry; `close` ends it."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.address, self.port = address, _free_port(address)
        config = directory / "registry.yml"
        config.write_text(CONFIG.format(storage=directory / "registry", address=address, port=self.port))
        with (directory / "registry.log").open("wb") as log:
            argv = ["docker-registry", "serve", str(config)]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            eventually(self._answers, 15, "docker-registry")
        except BaseException:
            self.close()
            raise

    def push(self, recipe: Recipe, reference: str) -> None:
        """Put an image there: `library/nginx:1.20.0`."""
        source = f"oci:{layout(recipe)}:latest"
        target = f"docker://127.0.0.1:{self.port}/{reference}"
        argv = ["skopeo", "copy", "-q", "--dest-tls-verify=false", source, target]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)

    def mirror_at(self, address: str) -> str:
        """The text of a registries.conf that takes docker.io from this registry, as reached at `address`."""
        return MIRROR.format(address=address, port=self.port)

    def conf(self, address: str) -> str:
        """The text that permits it without TLS under its own name, as reached at `address`."""
        return f'[[registry]]\nlocation = "{address}:{self.port}"\ninsecure = true\n'

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "docker-registry ended at once"
        with socket.socket() as client:
            return client.connect_ex((self.address, self.port)) == 0


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])

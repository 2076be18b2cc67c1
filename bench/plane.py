"""A control plane of its own for a bench: made, served in its own process, and gone with its directory.

Clients speak raw bytes: what is measured is the server, not the client's encoder. Both share the machine's cores.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from controlplane.tokens import Tokens
from podplane import context
from podplane.tls import CHANNEL_OPTIONS, token_channel_credentials

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane that answers. Channels are opened in the running event loop."""

    address: str
    authority: bytes
    token: str

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(
            self.address, token_channel_credentials(self.authority, self.token), options=options
        )


@contextmanager
def serving() -> Iterator[Plane]:
    """A control plane on loopback, whose nodes need not speak."""
    with tempfile.TemporaryDirectory(prefix="podplane-bench-") as made:
        state, file = Path(made) / "state", Path(made) / "context"
        port, node_port = free_port(), free_port()
        program = [sys.executable, "-m", "controlplane"]
        server = ["--server", f"127.0.0.1:{port}", "--context-file", str(file)]
        subprocess.run([*program, "init", "--state-dir", state, *server], check=True, capture_output=True, timeout=30)
        listen = ["--listen", f"127.0.0.1:{port}", "--node-listen", f"127.0.0.1:{node_port}"]
        with (Path(made) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*program, "serve", "--state-dir", state, *listen, "--node-grace-seconds", "3600"], stderr=log
            )
        try:
            yield _answering(file, state, port)
        finally:
            process.terminate()
            process.wait(30)


def _answering(file: Path, state: Path, port: int) -> Plane:
    chosen = context.read(file).context()
    plane = Plane(
        f"127.0.0.1:{port}",
        chosen.certificate_authority_data.encode(),
        Tokens(state / "tokens").create("bench", "admin", 3600),
    )
    channel: Any = grpc.secure_channel(plane.address, token_channel_credentials(plane.authority, None))
    grpc.channel_ready_future(channel).result(START_SECONDS)
    channel.close()
    return plane


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port

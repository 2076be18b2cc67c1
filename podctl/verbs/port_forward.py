"""podctl port-forward: connections to local ports become connections to ports of a pod, one stream each."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, NamedTuple

from podctl.client import Client, connect
from podctl.errors import wording
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.podtarget import one_pod, pod_port
from podplane.errors import NotFound, PodplaneError
from podplane.v1.requests_pb2 import PortForwardRequest, PortForwardResponse

USAGE = "(POD | TYPE/NAME) [LOCAL:]REMOTE [...]"
EXAMPLES = """
  podctl port-forward web 8080:80
  podctl port-forward service/web 8080:80
  podctl port-forward web :5432
  podctl port-forward --address 0.0.0.0 web 8080:80 9090:90
"""

_CHUNK = 32 << 10
_ACCEPTED = 128


class Ports(NamedTuple):
    """A local port, 0 for any that is free, and the pod's."""

    local: int
    remote: int


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="POD", nargs="*", help="a pod, or TYPE/NAME of what has pods; then the ports")
    parser.add_argument(
        "--address", metavar="LIST", default="localhost", help="addresses to listen on, separated by commas (localhost)"
    )


def run(args: Namespace) -> int:
    target, *words = args.what or [""]
    if not words:
        raise UsageFailure("TYPE/NAME and list of ports are required for port-forward", "port-forward")
    pairs = [parse_ports(word) for word in words]
    with connect(args) as client, contextlib.ExitStack() as stack:
        pod = one_pod(client, target)
        if pod.status.phase != "Running":
            phase = pod.status.phase
            raise Failure(f"error: unable to forward port because pod is not running. Current status={phase}")
        listeners: dict[socket.socket, int] = {}
        for pair in pairs:
            remote = pod_port(client, target, pod, pair.remote)
            for listener in _listen(args.address, pair.local):
                stack.enter_context(listener)
                listeners[listener] = remote
                print(f"Forwarding from {_shown(listener)} -> {remote}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            _serve(client, pod, listeners)
    return 0


def parse_ports(word: str) -> Ports:
    """`8080:80`, `80` for the same on both sides, `:80` for any local one."""
    match = re.fullmatch(r"(?:(\d*):)?(\d+)", word, re.ASCII)
    if match is None or not 0 < int(match[2]) < 65536 or int(match[1] or 0) > 65535:
        raise Failure(f"error: invalid port {word}: it is LOCAL:REMOTE, REMOTE or :REMOTE, of 1 to 65535")
    remote = int(match[2])
    return Ports(remote if match[1] is None else int(match[1] or 0), remote)


def _listen(addresses: str, port: int) -> Iterator[socket.socket]:
    """Listeners on each address; for localhost, one that cannot be had is left out if the other can."""
    if addresses == "localhost":
        failure: OSError | None = None
        made = []
        for address in ("127.0.0.1", "::1"):
            try:
                made.append(_bound(address, port))
            except OSError as error:
                failure = error
            else:
                port = port or made[0].getsockname()[1]
        if not made:
            raise Failure(f"error: unable to listen on port {port}: {failure}")
        yield from made
        return
    for address in addresses.split(","):
        try:
            yield _bound(address.strip(), port)
        except OSError as error:
            raise Failure(f"error: unable to listen on {address}:{port}: {error}") from None


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=_ACCEPTED)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _serve(client: Client, pod: Any, listeners: dict[socket.socket, int]) -> None:
    """Accept until the pod is gone."""
    gone, tell = os.pipe()
    with selectors.DefaultSelector() as selector:
        selector.register(gone, selectors.EVENT_READ)
        for listener in listeners:
            selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == gone:
                    raise Failure("error: lost connection to pod")
                listener = key.fileobj  # type: ignore[assignment]
                connection, _ = listener.accept()
                print(f"Handling connection for {listener.getsockname()[1]}", flush=True)
                start = PortForwardRequest.Start(
                    namespace=pod.metadata.namespace, name=pod.metadata.name, port=listeners[listener]
                )
                arguments = (client, PortForwardRequest(start=start), connection, tell)
                threading.Thread(target=carry, args=arguments, daemon=True).start()


def carry(client: Client, start: PortForwardRequest, connection: socket.socket, tell: int) -> None:
    """One connection from its begin to its end; `tell` is written to where the pod is gone."""
    try:
        for frame in client.duplex("Pods/PortForward", _requests(start, connection), PortForwardResponse):
            if frame.HasField("data"):
                connection.sendall(frame.data)
            elif frame.closeWrite:
                connection.shutdown(socket.SHUT_WR)
    except (PodplaneError, Failure) as error:
        print(wording(error), file=sys.stderr)
        if isinstance(error, NotFound):
            os.write(tell, b"!")
    except OSError:
        pass  # who connected has gone: there is nobody to tell
    finally:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads below
        connection.close()


def _requests(start: PortForwardRequest, connection: socket.socket) -> Iterator[PortForwardRequest]:
    yield start
    with contextlib.suppress(OSError):
        while data := connection.recv(_CHUNK):
            yield PortForwardRequest(data=data)
    yield PortForwardRequest(closeWrite=True)

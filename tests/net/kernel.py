"""A small network of real namespaces for tests: a node, a client beside it, servers and askers inside any of them.

Nothing forks: what must happen inside a namespace runs in a fresh thread that entered it. Everything that is made is
taken away by close(), in whatever state the test left it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from nodeagent import syscalls
from tests.support.waiting import patient

T = TypeVar("T")

NODE, CLIENT = "198.18.0.1", "198.18.0.2"
_PATIENCE = 5.0


def in_thread(work: Callable[[], T]) -> T:
    """Run work in a thread of its own and return or raise what it does."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patient(60))
    if failure:
        raise failure[0]
    assert outcome, "the work in the thread did not end"
    return outcome[0]


def inside(pin: Path, work: Callable[[], T]) -> T:
    """Run work in the network namespace that is pinned at pin."""

    def run() -> T:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        return work()

    return in_thread(run)


def command(pin: Path, line: str, text: str = "") -> str:
    """Run a command in the namespace and return what it prints; it must succeed."""
    done = inside(
        pin,
        lambda: subprocess.run(
            line.split(), input=text, capture_output=True, text=True, timeout=patient(20), check=False
        ),
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def ip(pin: Path, *lines: str) -> None:
    """Do what these lines tell iproute2's `ip`, in one process: one costs a third of a second in an emulated VM."""
    command(pin, "ip -batch -", "".join(f"{line}\n" for line in lines))


class Server:
    """Answers each connection and datagram with its name and the address that it sees asking.

    lasting: a connection goes on until the client ends it; what it says is repeated.
    """

    def __init__(
        self, pin: Path, name: str, address: str, port: int, udp: bool = False, *, lasting: bool = False
    ) -> None:
        self.name = name
        self._lasting = lasting
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self._socket = inside(pin, lambda: socket.socket(socket.AF_INET, kind))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._udp = udp
        if not udp:
            self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                if self._udp:
                    data, peer = self._socket.recvfrom(64)
                    if not data:
                        return
                    self._socket.sendto(f"{self.name} {peer[0]}".encode(), peer)
                else:
                    connection, peer = self._socket.accept()
                    with connection:
                        connection.sendall(f"{self.name} {peer[0]}".encode())
                        if self._lasting:
                            threading.Thread(target=self._repeat, args=[connection.dup()], daemon=True).start()
            except OSError:
                return

    @staticmethod
    def _repeat(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(100):
                connection.sendall(data)

    def close(self) -> None:
        # A close alone would not wake the thread, whose system call holds the socket and so the namespace.
        with contextlib.suppress(OSError):  # ENOTCONN for a UDP socket: it wakes all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(patient(5))
        assert not self._thread.is_alive()


def ask(pin: Path, address: str, port: int, timeout: float = 2.0, source: str = "") -> tuple[str, str]:
    """Connect from inside a namespace; returns (who answers, the source that it saw). Raises what connect does."""

    def connect() -> tuple[str, str]:
        with socket.create_connection((address, port), patient(timeout), (source, 0) if source else None) as connection:
            connection.settimeout(patient(timeout))
            name, seen = connection.recv(100).decode().split()
            return name, seen

    return inside(pin, connect)


class Talk:
    """A connection to a lasting server."""

    def __init__(self, pin: Path, address: str, port: int) -> None:
        self._socket = inside(pin, lambda: socket.create_connection((address, port), patient(2)))
        self._socket.settimeout(patient(2))
        self.name = self._socket.recv(100).decode().split()[0]
        """Who answers."""

    def say(self, words: str) -> str:
        """What comes back. Raises what the socket does."""
        self._socket.sendall(words.encode())
        return self._socket.recv(100).decode()

    def close(self) -> None:
        """End it at once, by a reset: otherwise it is remembered for two minutes."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.close()


class Flow:
    """A UDP flow that keeps its port, as a resolver's does."""

    def __init__(self, pin: Path, address: str, port: int) -> None:
        self._socket = inside(pin, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.settimeout(patient(0.2))
        self._socket.connect((address, port))

    def ask(self) -> str:
        """Who answers one datagram. Raises TimeoutError or ConnectionRefusedError."""
        return self.answer()[0]

    def answer(self) -> tuple[str, str]:
        """Who answers one datagram, and the source that it saw; raises as ask() does."""
        self._socket.send(b"?")
        name, seen = self._socket.recv(100).decode().split()
        return name, seen

    def close(self) -> None:
        self._socket.close()


def until(condition: Callable[[], bool], what: str, patience: float = _PATIENCE) -> float:
    """Wait for a condition and return how long it took; fail after patience seconds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < patient(patience), f"{what}: not within {patience:g} s"
        time.sleep(0.01)
    return time.monotonic() - started


class World:
    """A node and a client in namespaces of their own, joined by a cable; the client is the node's default gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mode = "iptables"
        """The proxy mode of the node."""
        self._pins: list[Path] = []
        self._open: list[Server | Flow | Talk] = []
        self.node = self.namespace("node")
        self.client = self.namespace("client")
        ip(self.node, f"link add up0 type veth peer name up0 netns {self.client}")
        ip(self.client, f"address add {CLIENT}/24 dev up0", "link set up0 up")
        ip(self.node, f"address add {NODE}/24 dev up0", "link set up0 up", f"route add default via {CLIENT}")
        # Sent to a client beside the node, redirects use up what the kernel allows of refusals.
        command(self.node, "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.up0.send_redirects=0")

    def namespace(self, name: str) -> Path:
        """Make a network namespace with lo up."""
        pin = self.directory / f"netns-{name}"

        def make() -> None:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            pin.touch()
            syscalls.mount("/proc/thread-self/ns/net", pin, None, syscalls.MS_BIND)

        in_thread(make)
        self._pins.append(pin)
        command(pin, "ip link set lo up")
        return pin

    def serve(
        self, pin: Path, name: str, address: str, port: int, udp: bool = False, *, lasting: bool = False
    ) -> Server:
        server = Server(pin, name, address, port, udp, lasting=lasting)
        self._open.append(server)
        return server

    def talk(self, pin: Path, address: str, port: int) -> Talk:
        talk = Talk(pin, address, port)
        self._open.append(talk)
        return talk

    def flow(self, pin: Path, address: str, port: int) -> Flow:
        flow = Flow(pin, address, port)
        self._open.append(flow)
        return flow

    def close_sockets(self) -> None:
        """Stop every server and flow: an open socket keeps its namespace."""
        while self._open:
            self._open.pop().close()

    def close(self) -> None:
        self.close_sockets()
        for pin in self._pins:
            syscalls.unmount(pin)
            pin.unlink()


def _settings(*under: str) -> Iterator[tuple[str, str]]:
    """Those of /proc/sys/net in the calling thread's namespace. Not by sysctl(8): a process costs more in a VM."""
    for place in under:
        path = Path("/proc/sys/net", place)
        for file in path.iterdir() if path.is_dir() else (path,):
            with contextlib.suppress(OSError):  # there are some that can only be written
                yield str(file), file.read_text().strip()


def traces(pin: Path, directory: Path) -> dict[str, object]:
    """What must be the same before and after: the namespace's links, routes, rules and settings, and our mounts."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    lines = command(pin, "ip -4 -o -batch -", "link show\nroute show table all\n").splitlines()
    return {
        "links": sorted(line.split()[1] for line in lines if line[0].isdigit() and line.split()[0].endswith(":")),
        "routes": [line for line in lines if not line.split()[0].endswith(":")],
        "tables": [line for line in command(pin, "nft list tables").splitlines() if " podplane" in line],
        "settings": inside(pin, lambda: dict(_settings("ipv4/ip_forward", "ipv4/conf/all", "ipv4/vs", "bridge"))),
        "mounts": [line for line in mounts if f" {directory}/" in line],
        "files": sorted(str(path) for path in directory.rglob("*")),
    }


def assert_unchanged(pin: Path, directory: Path, before: dict[str, object]) -> None:
    """The traces are those of before; what differs is named."""
    after = traces(pin, directory)
    for what in before:
        assert after[what] == before[what], what

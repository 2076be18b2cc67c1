"""Whether a proxy mode works on this kernel: it programs a service in a throw-away namespace, and a client connects.

Owns the namespace, which goes with the thread that made it. Never touches the node's own rules. Never raises: what
fails is the answer. A fifth of a second at most for the modes there are.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from nodeagent import netlink, syscalls
from nodeagent.proxy.mode import Mode, Ranges, RulesRefused, RulesUnavailable, Wanted
from nodeagent.proxy.services import Endpoint, ServicePort
from nodeagent.sandbox import links

Open = Callable[[], Coroutine[Any, Any, Mode]]

_LO = 1
_SERVICE, _ENDPOINT = "192.0.2.1", "192.0.2.2"
_RANGES = Ranges("198.51.100.0/25", "198.51.100.0/24")
_DEADLINE = 60.0
"""Seconds. Loading modules may take long on a machine that is busy, and a mode is chosen once."""


async def missing(open: Open, deadline: float = _DEADLINE) -> str:
    """Why the mode that open() makes cannot be used here; "" where it can."""
    done: concurrent.futures.Future[str] = concurrent.futures.Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # from here on nobody can cancel it, and it may end late
        try:
            done.set_result(_try(open))
        except BaseException as error:
            done.set_exception(error)

    # A fresh thread, which keeps the namespace to itself and takes it along.
    threading.Thread(target=run, name="proxy self-test", daemon=True).start()
    try:
        async with asyncio.timeout(deadline):
            return await asyncio.wrap_future(done)
    except TimeoutError:
        return f"its self-test did not end within {deadline:g} s"


def _try(open: Open) -> str:
    """In a thread of its own, which is never used for anything else."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        _furnish()
        asyncio.run(_connect(open))
    except (RulesRefused, RulesUnavailable, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _furnish() -> None:
    with netlink.Socket() as connection:
        connection.do(
            links.set_up(_LO),
            links.put_address(_LO, IPv4Interface(f"{_ENDPOINT}/32")),
            links.put_route(IPv4Network(f"{_SERVICE}/32"), None, _LO),
        )


async def _connect(open: Open) -> None:
    with socket.create_server((_ENDPOINT, 0)) as server:
        port = server.getsockname()[1]
        ends = (Endpoint(_ENDPOINT, port, local=True),)
        plain = ServicePort("self/test", "", "tcp", _SERVICE, 80, 30000, ends)
        sticky = ServicePort("self/sticky", "", "tcp", _SERVICE, 81, 0, ends, affinity=10)
        mode = await open()
        try:
            services = {"self/sticky": (sticky,), "self/test": (plain,)}
            for refusal in (await mode.apply(Wanted(_RANGES, services))).values():
                raise RulesRefused(refusal)
            for number in (80, 81, 81):
                await asyncio.to_thread(_ask, number)
        finally:
            await mode.close()


def _ask(port: int) -> None:
    try:
        with contextlib.closing(socket.create_connection((_SERVICE, port), 2)):
            return
    except OSError as error:
        raise OSError(error.errno, f"a connection to a service did not arrive: {error}") from error

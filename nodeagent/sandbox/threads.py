"""Work that must not run on the loop's thread: in a thread of its own, waited for to its end.

A thread that changed its namespaces is never used again: it ends with its work. Cancelling the caller does not
interrupt the work half-way: the caller is cancelled after it, so that nothing runs on behind a lock that was let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from nodeagent.sandbox.failure import SandboxFailure

T = TypeVar("T")


async def in_fresh_thread(work: Callable[[], T], name: str) -> T:
    """Run work in a new thread and return what it returns or raise what it raises.

    Raises SandboxFailure where no thread can be had.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(deliver: Callable[[], None]) -> None:
        if not done.done():
            deliver()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # whatever it is belongs to the caller, who waits for it
            failure = error
            loop.call_soon_threadsafe(settle, lambda: done.set_exception(failure))
        else:
            loop.call_soon_threadsafe(settle, lambda: done.set_result(result))

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # the limit of threads or of memory
        raise SandboxFailure(f"cannot work on the pod's sandbox: {error}") from error
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():  # however often it is cancelled: the caller holds a lock for the work
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        if not done.cancelled():
            done.exception()  # seen: the caller asked for nothing any more
        raise

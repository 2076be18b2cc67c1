"""Work on paths that may hang, as those of a network mount whose server is gone: each in a thread of its own.

The pool that asyncio.to_thread shares has a few threads: a hung mount would take one after the other from everybody.
A caller that is cancelled (its deadline) is free at once; the thread, which nothing can interrupt, is told to stop at
its next step and ends when the kernel lets it. Fails with what the work raises, and OSError where no thread can be had.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
IsGivenUp = Callable[[], bool]


async def apart(work: Callable[[IsGivenUp], T], name: str) -> T:
    """What `work` returns; it asks between its steps whether anybody still waits for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    given_up = threading.Event()

    def settle(deliver: Callable[[], None]) -> None:
        if not done.done():
            deliver()

    def run() -> None:
        try:
            result = work(given_up.is_set)
        except BaseException as error:  # whatever it is belongs to the caller, where there still is one
            failure = error
            deliver: Callable[[], None] = lambda: done.set_exception(failure)  # noqa: E731
        else:
            deliver = lambda: done.set_result(result)  # noqa: E731
        if not given_up.is_set():
            loop.call_soon_threadsafe(settle, deliver)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # the limit of threads or of memory
        raise OSError(f"cannot work on {name}: {error}") from error
    try:
        return await done
    finally:
        given_up.set()

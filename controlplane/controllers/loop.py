"""What every controller is made of: follow kinds, turn their changes into keys, reconcile key by key.

A reconcile reads the newest state, plans purely and writes what differs. It may be cut off anywhere and run again
at any time: it is level-triggered, and the plan of a state that is as it should be is empty.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from controlplane.controllers.queue import Key, WorkQueue
from controlplane.objects import Objects
from controlplane.store.stored import Event
from podplane.errors import Conflict, Expired, NotFound, PodplaneError
from podplane.kinds import Kind

log = logging.getLogger(__name__)

EventKeys = Callable[[Event], Iterable[Key]]
Reconcile = Callable[[Key], Awaitable[float | None]]
"""Work on a key; the result is in how many seconds to look again, None: at the next change."""


async def follow(objects: Objects, kind: Kind, deliver: Callable[[Event], None], restart: Callable[[], None]) -> None:
    """Deliver every change of a kind, for ever.

    `restart` is called in the same loop step in which the watch begins, first and whenever this reader was too
    slow for it: it has to take in everything that there is, as after a start.
    """
    while True:
        subscription = objects.watch(kind)
        restart()
        try:
            async for batch in subscription:
                for event in batch:
                    if event.type != "BOOKMARK":
                        deliver(event)
            return
        except Expired:
            log.info("watch of %s was too slow: listing again", kind.plural)
        finally:
            subscription.close()


@dataclass(frozen=True, slots=True)
class Source(Generic[Key]):
    """A kind whose changes concern some keys."""

    kind: Kind
    keys: EventKeys[Key]


async def control(
    name: str,
    objects: Objects,
    queue: WorkQueue[Key],
    reconcile: Reconcile[Key],
    *,
    sources: Sequence[Source[Key]],
    everything: Callable[[], Iterable[Key]],
    workers: int = 8,
) -> None:
    """Run a controller until it is cancelled. `everything` lists all keys: those of a start."""

    def restart() -> None:
        for key in everything():
            queue.add(key)

    def deliver(source: Source[Key], event: Event) -> None:
        for key in source.keys(event):
            queue.add(key)

    def watch(source: Source[Key]) -> Awaitable[None]:
        return follow(objects, source.kind, lambda event: deliver(source, event), restart)

    try:
        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(_ensure(watch(source)), name=f"{name}: watch {source.kind.plural}")
            for number in range(workers):
                group.create_task(_work(name, queue, reconcile), name=f"{name}: worker {number}")
    finally:
        queue.close()


async def _ensure(running: Awaitable[None]) -> None:
    await running
    raise RuntimeError("cannot go on: the watch was closed")


async def _work(name: str, queue: WorkQueue[Key], reconcile: Reconcile[Key]) -> None:
    while True:
        key = await queue.get()
        try:
            again = await reconcile(key)
        except (Conflict, NotFound) as error:
            log.debug("%s: %s changed meanwhile: %s", name, key, error)
            queue.failed(key)
        except PodplaneError as error:
            delay = queue.failed(key)
            log.warning("%s: cannot reconcile %s, next try in %.1f s: %s", name, key, delay, error)
        except Exception:
            # One object that trips a bug must not take every other object's control away.
            delay = queue.failed(key)
            log.exception("%s: reconciling %s failed, next try in %.1f s", name, key, delay)
        else:
            queue.succeeded(key)
            if again is not None:
                queue.add_after(key, again)
        finally:
            queue.done(key)

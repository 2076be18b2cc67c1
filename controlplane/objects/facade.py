"""Objects: the only writer of the store, for handlers (after authorization), scheduler and controllers alike.

It owns metadata (uid, resourceVersion, generation, timestamps), the split of spec and status, deletion and
finalizers, and it runs admission; what these decide is in the pure modules beside it. It never decides who may
write. Every write is read, change, compare-and-set: it fails with Conflict where the caller insisted on a
revision, and starts over where it did not. A write that changes nothing makes no revision.
"""

from __future__ import annotations

import asyncio
import copy
import random
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from controlplane.api.admission_context import AdmissionContext, AdmissionSettings
from controlplane.objects import applied, binding, deletion, words
from controlplane.objects import metadata as meta
from controlplane.objects.addresses import ledger_of
from controlplane.objects.admission import Admission
from controlplane.objects.rehearsal import Committing, Rehearsal
from controlplane.store.cache import Stored, Subscription, WatchCache
from controlplane.store.log import Log, Write
from controlplane.store.stored import key_of
from podplane.errors import AlreadyExists, Conflict, NotFound, PodplaneError
from podplane.kinds import KINDS, NAMESPACE, POD, SERVICE, Kind, kind_of

_ATTEMPTS = 64  # of a compare-and-set: each failure means that another writer got on

M = TypeVar("M", bound=Message)
Clock = Callable[[], float]
"""Seconds since the epoch."""

_Step = Callable[[Stored], Any]
"""From the live object to a private new one; None where there is nothing to do."""


class Objects:
    """The facade. Reads come from `cache`, which every acknowledged write has reached."""

    def __init__(
        self,
        log: Log,
        cache: WatchCache,
        admission: Admission,
        clock: Clock,
        settings: AdmissionSettings = AdmissionSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.cache = cache
        self._log: Committing = log
        self._admission = admission
        self._clock = clock
        self._settings = settings
        self._ledger = ledger_of(log, cache)
        self._random = random.Random()
        # Addresses and node ports are allocated against the cache: one service at a time, until it is there.
        self._services = asyncio.Lock()
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._arriving: Counter[str] = Counter()

    def rehearsal(self) -> Objects:
        """The same objects, whose writes are admitted, defaulted and answered, and leave nothing (a dry run)."""
        made = copy.copy(self)
        made._log = Rehearsal()
        return made

    def stored(self, kind: Kind, namespace: str, name: str) -> Stored:
        """The object as stored; NotFound."""
        found = self.cache.get(kind, namespace, name)
        if found is None:
            raise words.not_found(kind, name)
        return found

    def get(self, kind: Kind, namespace: str, name: str) -> Any:
        """A private copy of the object; NotFound."""
        return kind.parse(self.stored(kind, namespace, name).wire)

    def list(
        self, kind: Kind, namespace: str | None = None, selector: Callable[[Any], bool] | None = None
    ) -> list[Any]:
        """Objects in key order, all namespaces where none is given. They are SHARED: copy before a change."""
        found = (stored.obj for stored in self.cache.list(kind, namespace))
        return [obj for obj in found if selector is None or selector(obj)]

    def watch(self, kind: Kind, after: int | None = None, namespace: str | None = None) -> Subscription:
        """As WatchCache.watch."""
        return self.cache.watch(kind, after, namespace)

    async def create(self, obj: M) -> M:
        """Create; AlreadyExists, Invalid, NotFound or Forbidden (its namespace), TooLarge. Status is dropped."""
        kind = kind_of(obj)
        async with self._turn(kind):
            for _ in range(_ATTEMPTS):
                new = meta.copy_of(obj)
                generated = meta.generate_name(new, self._random)
                try:
                    return await self._create(kind, new)  # type: ignore[no-any-return]
                except AlreadyExists:
                    if not generated:
                        raise
        raise words.already_exists(kind, meta.metadata_of(obj).generateName)

    async def update(self, obj: M) -> M:
        """Replace everything but the status. metadata.resourceVersion and uid are preconditions where set."""
        kind = kind_of(obj)
        check = _preconditions(kind, meta.metadata_of(obj).uid, meta.revision_asked(obj))

        def step(stored: Stored) -> Any:
            check(stored)
            return self._replacement(kind, meta.copy_of(obj), stored.obj)

        async with self._turn(kind):
            return await self._revise(kind, *meta.address(obj, kind), step)  # type: ignore[no-any-return]

    async def update_status(self, obj: M) -> M:
        """Replace the status only. Invalid where it cannot be, or the kind has none."""
        kind = kind_of(obj)
        check = _preconditions(kind, meta.metadata_of(obj).uid, meta.revision_asked(obj))

        def step(stored: Stored) -> Any:
            check(stored)
            return self._with_status(kind, obj, stored.obj)

        return await self._revise(kind, *meta.address(obj, kind), step)  # type: ignore[no-any-return]

    async def apply(self, obj: M) -> M:
        """Create, or merge three ways into what is there: fields that others set stay. Preconditions as update."""
        kind = kind_of(obj)
        manifest = applied.manifest_of(obj, kind)
        namespace, name = meta.address(manifest, kind)
        check = _preconditions(kind, meta.metadata_of(obj).uid, meta.revision_asked(obj))

        def step(stored: Stored) -> Any:
            check(stored)
            return self._replacement(kind, applied.merged(stored.obj, manifest, kind), stored.obj)

        async with self._turn(kind):
            for _ in range(_ATTEMPTS):
                there = self.cache.get(kind, namespace, name) is not None
                try:
                    if there:
                        return await self._revise(kind, namespace, name, step)  # type: ignore[no-any-return]
                    return await self._create(kind, applied.first(manifest, obj))  # type: ignore[no-any-return]
                except (NotFound, AlreadyExists):
                    # Made or removed by another between look and write; a missing namespace is no race.
                    if there == (self.cache.get(kind, namespace, name) is not None):
                        raise
        raise words.modified(kind, name)

    async def mutate(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Any], bool],
        *,
        status: bool = False,
        uid: str | None = None,
    ) -> Any:
        """Let `change` edit a private copy, as often as it takes; it returns False for "nothing to do".

        With `status` only the status that it leaves counts, without only the rest.
        """
        check = _preconditions(kind, uid)

        def step(stored: Stored) -> Any:
            check(stored)
            new = kind.parse(stored.wire)
            if not change(new):
                return None
            if status:
                return self._with_status(kind, new, stored.obj)
            return self._replacement(kind, new, stored.obj)

        async with self._turn(kind):
            return await self._revise(kind, namespace, name, step)

    async def bind(
        self, namespace: str, name: str, node_name: str, *, uid: str | None = None, revision: int | None = None
    ) -> Any:
        """Put a pod on a node; Conflict where it is bound, being deleted, or of another uid or revision."""
        check = _preconditions(POD, uid, revision)

        def step(stored: Stored) -> Any:
            check(stored)
            return binding.bound(stored.obj, node_name, self._now())

        return await self._revise(POD, namespace, name, step)

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        revision: int | None = None,
        grace: int | None = None,
        propagation: str = "Background",
    ) -> Any:
        """Begin, hasten or complete a deletion (deletion.py says which); the object as it was left.

        `grace` in seconds, None takes the object's own; `propagation` is Background, Foreground or Orphan.
        """
        options = deletion.DeleteOptions(grace, propagation)
        options.check(kind, name)
        check = _preconditions(kind, uid, revision)

        def step(stored: Stored) -> Any:
            check(stored)
            return deletion.marked(stored.obj, kind, options, self._now())

        return await self._revise(kind, namespace, name, step)

    async def remove(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """End a deletion whose processes (pod) or contents (namespace) are gone; finalizers still hold it.

        Nothing happens where the object, or this one of its name, is gone. Conflict where it is not being
        deleted, or where a namespace is not empty.
        """

        def step(stored: Stored) -> Any:
            if stored.obj.metadata.uid != uid:
                return None
            if not stored.obj.metadata.HasField("deletionTimestamp"):
                raise words.cannot(kind, name, "it is not being deleted")
            if kind is NAMESPACE:
                self._check_empty(name)
            return deletion.released(stored.obj)

        try:
            await self._revise(kind, namespace, name, step)
        except NotFound:
            return

    async def transact(self, writes: Iterable[Coroutine[Any, Any, Any]]) -> Sequence[Any]:
        """Do independent writes at once: they share group commits. Results in order, PodplaneErrors in place."""
        results = await asyncio.gather(*writes, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, PodplaneError):
                raise result
        return results

    # Below: what all writes share.

    def _now(self) -> float:
        return self._clock()

    def _new_uid(self) -> str:
        """A version 4 UUID; unique, not secret: the kernel's randomness costs a system call each."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _turn(self, kind: Kind) -> AbstractAsyncContextManager[Any]:
        return self._services if kind is SERVICE else nullcontext()

    async def _create(self, kind: Kind, new: Any) -> Any:
        meta.prepare_create(new, kind, uid=self._new_uid(), now=self._now())
        namespace, name = new.metadata.namespace, new.metadata.name
        self._check_namespace(kind, namespace, name)
        if self.cache.get(kind, namespace, name) is not None:
            raise words.already_exists(kind, name)
        self._admit(kind, new, None)
        data = meta.encode(new, kind)
        with self._arrival(namespace):
            try:
                (change,) = await self._log.commit([Write(key_of(kind, namespace, name), data, 0)])
            except Conflict:
                raise words.already_exists(kind, name) from None
        if change.revision:
            new.metadata.resourceVersion = str(change.revision)
        return new

    async def _revise(self, kind: Kind, namespace: str, name: str, step: _Step) -> Any:
        """Read, change, compare-and-set, until it fits. The group that refused us has reached the cache by then.

        Writers of one object queue up here: left to compare-and-set alone, only one of a crowd gets on at a time.
        """
        async with self._turn_of(key_of(kind, namespace, name)):
            for _ in range(_ATTEMPTS):
                stored = self.stored(kind, namespace, name)
                new = step(stored)
                if new is None:
                    return kind.parse(stored.wire)
                data: bytes | None = meta.encode(new, kind)
                if deletion.is_over(new):
                    data = None
                elif data == stored.data:
                    return kind.parse(stored.wire)
                try:
                    (change,) = await self._log.commit([Write(stored.key, data, stored.revision)])
                except Conflict:
                    continue
                new.metadata.resourceVersion = str(change.revision)
                return new
        raise words.modified(kind, name)

    def _turn_of(self, key: str) -> asyncio.Lock:
        lock = self._writing.get(key)
        if lock is None:
            lock = self._writing[key] = asyncio.Lock()
        return lock

    def _replacement(self, kind: Kind, new: Any, live: Any) -> Any:
        meta.prepare_update(new, live, kind)
        self._admit(kind, new, live)
        meta.count_generation(new, live)
        return new

    def _with_status(self, kind: Kind, submitted: Any, live: Any) -> Any:
        new = meta.with_status(live, submitted, kind)
        if wrong := self._admission.validate_status(new, live):
            raise words.invalid(kind, new.metadata.name, wrong)
        return new

    def _admit(self, kind: Kind, new: Any, old: Any) -> None:
        context = AdmissionContext(
            "create" if old is None else "update",
            lookup=self._lookup,
            ledger=self._ledger,
            settings=self._settings,
            rng=self._random,
        )
        self._admission.mutate(new, old, context)
        if wrong := self._admission.validate(new, old, context):
            raise words.invalid(kind, new.metadata.name, wrong)
        if reason := self._admission.forbids(new, old, context):
            raise words.forbidden(kind, new.metadata.name, reason)

    def _lookup(self, kind: Kind, namespace: str, name: str) -> Any | None:
        found = self.cache.get(kind, namespace, name)
        return found.obj if found else None

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        home = self.cache.get(NAMESPACE, "", namespace)
        if home is None:
            raise words.no_namespace(namespace)
        if home.obj.metadata.HasField("deletionTimestamp"):
            raise words.namespace_ends(kind, name, namespace)

    @contextmanager
    def _arrival(self, namespace: str) -> Iterator[None]:
        """Counts a create between its look at the namespace and its place in the cache."""
        self._arriving[namespace] += 1
        try:
            yield
        finally:
            self._arriving[namespace] -= 1
            if not self._arriving[namespace]:
                del self._arriving[namespace]

    def _check_empty(self, namespace: str) -> None:
        left = [kind.plural for kind in KINDS.values() if kind.namespaced and self.cache.list(kind, namespace)]
        if left or self._arriving[namespace]:
            raise words.cannot(NAMESPACE, namespace, f"it still contains {', '.join(left) or 'what is being created'}")


def _preconditions(kind: Kind, uid: str | None, revision: int | None = None) -> Callable[[Stored], None]:
    """A check that raises Conflict where the live object has another uid or revision than was asked for."""

    def check(stored: Stored) -> None:
        if uid and stored.obj.metadata.uid != uid:
            raise words.uid_differs(kind, stored.name, uid, stored.obj.metadata.uid)
        if revision is not None and stored.revision != revision:
            raise words.modified(kind, stored.name)

    return check

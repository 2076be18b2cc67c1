"""Which objects of a kind a controller has to look at, without looking at all: an index by managing owner.

An index, not a cache: it holds names, and the state is read from the watch cache, which is never behind a write of
ours. It may hold too many names (of objects that have gone), never too few: what a controller creates it adds itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from controlplane.controllers.facts import ObjectKey, Owner, adopt, controlled_by, controller_of, disown, key_of
from controlplane.objects import Objects
from controlplane.store.stored import Event
from podplane.errors import Conflict, NotFound
from podplane.kinds import Kind, Object


class Owned:
    """Names of one kind's objects by the uid of their controller, and of those without one by namespace."""

    def __init__(self, objects: Objects, kind: Kind) -> None:
        self._objects = objects
        self._kind = kind
        self._by_owner: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._orphans: defaultdict[str, set[ObjectKey]] = defaultdict(set)

    def load(self) -> None:
        """Take in all that there is."""
        for obj in self._objects.list(self._kind):
            self.add(obj)

    def add(self, obj: Object) -> None:
        """The object is there, in this state."""
        self._names(obj).add(key_of(obj))

    def take(self, event: Event) -> None:
        """An event of the kind: the object moves where it belongs now."""
        before = event.previous.obj if event.previous else None
        after = event.stored.obj
        if before is not None and _owner(before) != _owner(after):
            self._remove(before)
        if event.type == "DELETED":
            self._remove(after)
        else:
            self.add(after)

    def of(self, uid: str) -> list[Any]:
        """The objects that this owner manages, in the order of their names."""
        return [obj for obj in self._read(self._by_owner.get(uid, ())) if _owner(obj) == uid]

    def orphans(self, namespace: str) -> list[Any]:
        """The objects of a namespace that no controller manages."""
        return [obj for obj in self._read(self._orphans.get(namespace, ())) if not _owner(obj)]

    async def adopt(self, orphan: Object, owner: Owner) -> Any | None:
        """Give the orphan to `owner`; what it is then, None where it went, is going, or is another's meanwhile."""
        changed = await self._change(orphan, lambda live: adopt(live, owner))
        return changed if changed is not None and controlled_by(changed.metadata, owner.metadata.uid) else None

    async def release(self, obj: Object, owner: Owner) -> None:
        """Take the object away from `owner`."""
        await self._change(obj, lambda live: disown(live.metadata, owner.metadata.uid))

    async def _change(self, obj: Object, change: Callable[[Any], bool]) -> Any | None:
        try:
            changed = await self._objects.mutate(self._kind, *key_of(obj), change, uid=obj.metadata.uid)
        except (NotFound, Conflict):
            return None
        self.add(changed)
        return changed

    def _read(self, names: Any) -> Iterator[Any]:
        for namespace, name in sorted(names):
            stored = self._objects.cache.get(self._kind, namespace, name)
            if stored is not None:
                yield stored.obj

    def _names(self, obj: Object) -> set[ObjectKey]:
        owner = _owner(obj)
        return self._by_owner[owner] if owner else self._orphans[obj.metadata.namespace]

    def _remove(self, obj: Object) -> None:
        # The same name may have come back meanwhile, with the same owner: then it stays.
        current = self._objects.cache.get(self._kind, *key_of(obj))
        if current is not None and _owner(current.obj) == _owner(obj):
            return
        names = self._names(obj)
        names.discard(key_of(obj))
        if not names:
            self._by_owner.pop(_owner(obj), None)


def owners(event: Event, kind: Kind, adopters: Callable[[Any], Iterable[ObjectKey]]) -> set[ObjectKey]:
    """Whom of this kind an event is about: who managed the object or does, and who may adopt it while nobody does."""
    found: set[ObjectKey] = set()
    for obj in (event.stored.obj, *([event.previous.obj] if event.previous else [])):
        owner = controller_of(obj.metadata)
        if owner is None:
            found.update(adopters(obj))
        elif owner.kind == kind.name:
            found.add((obj.metadata.namespace, owner.name))
    return found


def _owner(obj: Object) -> str:
    owner = controller_of(obj.metadata)
    return owner.uid if owner is not None else ""

"""When a pod that is being deleted has left every node's service rules, so that SIGTERM loses no request. Pure.

    pod deleted ─► its endpoints are terminating in all of its slices, at revision R at the latest
                ─► every node that was heard of lately has programmed R, of these services ─► withdrawn

Owns, per pod uid, in which slices it stands, and per node, how far its rules are. Never sends anything: who feeds it
asks `due` afterwards. Cannot fail; a node that never reports holds a pod up, one that cannot program a service holds
up the pods of that one, and the pod's agent waits only so long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.controllers.slices import SERVICE_NAME
from controlplane.store.stored import Event, Stored

Pod = tuple[str, str]
"""(node, uid)"""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a slice says of a pod. service: namespace/name."""

    service: str
    revision: int
    terminating: bool


class Withdrawals:
    """Told of every slice, every pod that is being deleted, and every node's report."""

    def __init__(self) -> None:
        self._slices: dict[str, frozenset[str]] = {}
        self._standing: dict[str, dict[str, _Standing]] = {}
        self._programmed: dict[str, int] = {}
        self._frozen: dict[str, frozenset[str]] = {}
        self._waiting: dict[str, str] = {}
        self._withdrawn: dict[str, str] = {}

    def load_pods(self, pods: Iterable[Stored]) -> None:
        """Start over with these pods; what was withdrawn is found, and told, once more."""
        self._waiting.clear()
        self._withdrawn.clear()
        for stored in pods:
            self.pod_changed(stored)

    def load_slices(self, slices: Iterable[Stored]) -> None:
        """Start over with these endpoint slices."""
        self._slices.clear()
        self._standing.clear()
        for stored in slices:
            self._put(stored)

    def slice_changed(self, event: Event) -> None:
        """An endpoint slice is new, has changed, or is gone."""
        if event.type == "DELETED":
            self._take_out(event.stored.key)
        else:
            self._put(event.stored)

    def _put(self, stored: Stored) -> None:
        self._take_out(stored.key)
        ends = {each.targetRef.uid: each.conditions.terminating for each in stored.obj.endpoints if each.targetRef.uid}
        self._slices[stored.key] = frozenset(ends)
        service = f"{stored.namespace}/{stored.obj.metadata.labels.get(SERVICE_NAME, '')}"
        for uid, terminating in ends.items():
            self._standing.setdefault(uid, {})[stored.key] = _Standing(service, stored.revision, terminating)

    def _take_out(self, key: str) -> None:
        for uid in self._slices.pop(key, ()):
            standing = self._standing[uid]
            del standing[key]
            if not standing:
                del self._standing[uid]

    def pod_changed(self, stored: Stored) -> None:
        """A pod is new or has changed."""
        metadata = stored.obj.metadata
        node = stored.obj.spec.nodeName
        if node and metadata.HasField("deletionTimestamp") and metadata.uid not in self._withdrawn:
            self._waiting[metadata.uid] = node

    def pod_removed(self, uid: str) -> None:
        """The pod's object is gone."""
        self._waiting.pop(uid, None)
        self._withdrawn.pop(uid, None)

    def programmed(self, node: str, revision: int, frozen: Iterable[str] = ()) -> None:
        """The node's rules say what services and slices said at this revision; of the frozen, at some older one."""
        self._programmed[node], self._frozen[node] = revision, frozenset(frozen)

    def rules_of(self, node: str) -> int:
        """The revision that the node's rules express; 0 where it never said."""
        return self._programmed.get(node, 0)

    def due(self, alive: Iterable[str]) -> list[Pod]:
        """The pods that are withdrawn since the last time, given the nodes that were heard of lately."""
        if not self._waiting:
            return []
        nodes = tuple(alive)
        everywhere = min(map(self.rules_of, nodes), default=0)
        frozen = frozenset().union(*(self._frozen.get(node, ()) for node in nodes))
        found = [(node, uid) for uid, node in self._waiting.items() if self._is_out(uid, everywhere, frozen)]
        for node, uid in found:
            del self._waiting[uid]
            self._withdrawn[uid] = node
        return found

    def _is_out(self, uid: str, everywhere: int, frozen: frozenset[str]) -> bool:
        standing = self._standing.get(uid, {}).values()
        return all(it.terminating and it.revision <= everywhere and it.service not in frozen for it in standing)

    def of(self, node: str) -> list[str]:
        """The pods of a node that are withdrawn and not gone yet: what a new session has to be told again."""
        return [uid for uid, where in self._withdrawn.items() if where == node]

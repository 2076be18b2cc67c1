"""Which pods are on which node, and which config maps and secrets they use: the index that routing and the rule for
nodes read. Pure; the hub keeps it up to date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.nodes.references import Reference, references
from controlplane.store.stored import Stored

_NONE: Mapping[str, Stored] = {}


class Placement:
    """The bound pods of the cluster by node."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Stored]] = {}
        self._references: dict[str, frozenset[Reference]] = {}
        self._users: dict[Reference, dict[str, int]] = {}

    def load(self, pods: Iterable[Stored]) -> None:
        """Start over with these."""
        self._pods, self._references, self._users = {}, {}, {}
        for stored in pods:
            self.put(stored)

    def put(self, stored: Stored) -> str:
        """Take in a pod's new state; its node's name, empty where it is not bound."""
        pod = stored.obj
        node: str = pod.spec.nodeName
        if not node:
            return ""
        uid = pod.metadata.uid
        held = self._pods.setdefault(node, {})
        if uid not in held:
            self._references[uid] = references(pod)
            for reference in self._references[uid]:
                users = self._users.setdefault(reference, {})
                users[node] = users.get(node, 0) + 1
        held[uid] = stored
        return node

    def remove(self, stored: Stored) -> str:
        """Take out a pod that is gone; the name of the node that it was on."""
        pod = stored.obj
        node, uid = pod.spec.nodeName, pod.metadata.uid
        held = self._pods.get(node, {})
        if held.pop(uid, None) is None:
            return ""
        if not held:
            del self._pods[node]
        for reference in self._references.pop(uid):
            users = self._users[reference]
            users[node] -= 1
            if not users[node]:
                del users[node]
            if not users:
                del self._users[reference]
        return str(node)

    def pods(self, node: str) -> Mapping[str, Stored]:
        """The pods of a node by uid. Do not keep it: it changes."""
        return self._pods.get(node, _NONE)

    def users(self, reference: Reference) -> list[str]:
        """The nodes whose pods refer to this object."""
        return list(self._users.get(reference, ()))

    def references(self, uid: str) -> frozenset[Reference]:
        """What a bound pod refers to."""
        return self._references.get(uid, frozenset())

    def runs(self, node: str, namespace: str, pod: str) -> bool:
        """True where the pod is bound to the node."""
        key = f"pods/{namespace}/{pod}"
        return any(stored.key == key for stored in self.pods(node).values())

    def uses(self, node: str, kind: str, namespace: str, name: str) -> bool:
        """True where a pod of the node refers to this ConfigMap or Secret."""
        return node in self._users.get((kind, namespace, name), ())

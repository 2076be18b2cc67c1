"""The cluster as the scheduler sees it: nodes with what is free on them, kept from watch events and assumptions.

A pod is counted on its node from the moment it is assumed there (before the bind is durable) until it is forgotten
(the bind failed), deleted or finished. An event older than the assumption does not undo it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from controlplane.scheduler.nodeinfo import NodeInfo, read_node
from controlplane.scheduler.podinfo import Group, PodInfo
from podplane.v1 import node_pb2

_KEPT_CHANGES = 16_384


class Snapshot:
    """Nodes by name, the pods on them, and the log of nodes that changed (for rankings to catch up)."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._on_node: defaultdict[str, dict[str, PodInfo]] = defaultdict(dict)
        self._pods: dict[str, PodInfo] = {}
        self._assumed: set[str] = set()
        self._group_nodes: defaultdict[Group, Counter[str]] = defaultdict(Counter)
        self._changes: list[str] = []
        self._base = 0

    @property
    def nodes(self) -> Mapping[str, NodeInfo]:
        return self._nodes

    @property
    def cursor(self) -> int:
        """The position after the newest change."""
        return self._base + len(self._changes)

    def changed_since(self, cursor: int) -> set[str] | None:
        """Names of nodes added, changed or removed since that position; None where that is no longer known."""
        return set(self._changes[cursor - self._base :]) if cursor >= self._base else None

    def nodes_of(self, group: Group) -> Iterator[str]:
        """The nodes that have a pod of the group."""
        return iter(self._group_nodes.get(group, ()))

    def set_node(self, node: node_pb2.Node) -> None:
        """A node was added or changed."""
        name = node.metadata.name
        self._nodes[name] = read_node(node, self._on_node[name].values())
        self._touch(name)

    def remove_node(self, name: str) -> None:
        """The node is gone; its pods stay known, in case it comes back before they go."""
        if self._nodes.pop(name, None) is not None:
            self._touch(name)

    def pod(self, uid: str) -> PodInfo | None:
        """What is known of a pod that counts on a node."""
        return self._pods.get(uid)

    def set_pod(self, pod: PodInfo) -> bool:
        """A pod was added or changed; True where that freed something on a node."""
        known = self._pods.get(pod.uid)
        if pod.finished:
            return self.remove_pod(pod.uid)
        if not pod.node:
            return False  # unbound, or an event from before the assumption: the bind's own event is still to come
        self._assumed.discard(pod.uid)
        if known is not None and known.node == pod.node and known.shape == pod.shape:
            return False
        freed = known is not None and self.remove_pod(pod.uid)
        self._place(pod)
        return freed

    def assume(self, pod: PodInfo, node: str) -> None:
        """Count the pod on the node although its bind is not durable yet."""
        self._place(replace(pod, node=node))
        self._assumed.add(pod.uid)

    def forget(self, uid: str) -> None:
        """The bind failed. Nothing where an event has meanwhile said that the pod is bound."""
        if uid in self._assumed:
            self.remove_pod(uid)

    def is_assumed(self, uid: str) -> bool:
        """Whether the pod counts on a node by assumption only."""
        return uid in self._assumed

    def remove_pod(self, uid: str) -> bool:
        """The pod is gone or finished; True where it was on a node."""
        self._assumed.discard(uid)
        pod = self._pods.pop(uid, None)
        if pod is None:
            return False
        self._on_node[pod.node].pop(uid, None)
        if not self._on_node[pod.node] and pod.node not in self._nodes:
            del self._on_node[pod.node]
        self._count(pod, -1)
        return True

    def _place(self, pod: PodInfo) -> None:
        self._pods[pod.uid] = pod
        self._on_node[pod.node][pod.uid] = pod
        self._count(pod, 1)

    def _count(self, pod: PodInfo, sign: int) -> None:
        node, group = self._nodes.get(pod.node), pod.shape.group
        if node is not None:
            node.take(pod, sign)
            self._touch(pod.node)
        if group is None:
            return
        counts = self._group_nodes[group]
        counts[pod.node] += sign
        if not counts[pod.node]:
            del counts[pod.node]
        if not counts:
            del self._group_nodes[group]

    def _touch(self, name: str) -> None:
        self._changes.append(name)
        if len(self._changes) > 2 * _KEPT_CHANGES:
            del self._changes[:_KEPT_CHANGES]
            self._base += _KEPT_CHANGES

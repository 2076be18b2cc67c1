"""The nodes in the order in which one shape of pod prefers them, kept exact by looking only at what changed.

Every node is filtered and scored once for a shape; after that only the nodes that the snapshot's change log names.
The answer is always that of scoring all nodes (tests compare the two): no sampling.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from heapq import heapify, heappop, heappush

from controlplane.scheduler.filters import reasons
from controlplane.scheduler.messages import Refusals, diagnose
from controlplane.scheduler.podinfo import Group, Shape
from controlplane.scheduler.scores import crowding, score
from controlplane.scheduler.snapshot import Snapshot

Verdict = int | tuple[str, ...]
"""A node's score, or why it cannot run the pod."""

_CACHED_VERDICTS = 300_000
"""Bounds the cache's memory: about 25 MB of verdicts and heap entries."""


class Ranking:
    """All nodes judged for one shape without a group. Ties go to the node whose name sorts first."""

    def __init__(self, shape: Shape, snapshot: Snapshot) -> None:
        self._shape = shape
        self._snapshot = snapshot
        self._verdicts: dict[str, Verdict] = {}
        self._heap: list[tuple[int, str]] = []
        self._cursor = -1
        self._message: str | None = None

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """By node name, as of the last `refresh`."""
        return self._verdicts

    def best(self) -> str | None:
        """The node to place a pod of this shape on; None where no node will do."""
        self.refresh()
        heap, verdicts = self._heap, self._verdicts
        while heap:
            negative, name = heap[0]
            if verdicts.get(name) == -negative:
                return name
            heappop(heap)  # left from before a change of that node
        return None

    def message(self) -> str:
        """Why no node will do, as the PodScheduled condition says it."""
        self.refresh()
        if self._message is None:
            refusals: Refusals = {name: each for name, each in self._verdicts.items() if isinstance(each, tuple)}
            self._message = diagnose(self._shape, self._snapshot.nodes, refusals)
        return self._message

    def refused_by(self) -> Counter[str]:
        """How many nodes each reason kept out."""
        self.refresh()
        return Counter(reason for each in self._verdicts.values() if isinstance(each, tuple) for reason in each)

    def refresh(self) -> None:
        """Look again at the nodes that changed since the last time."""
        if self._cursor == self._snapshot.cursor:
            return
        changed = self._snapshot.changed_since(self._cursor)
        self._cursor = self._snapshot.cursor
        self._message = None
        if changed is None or self._costs_more(len(changed)):
            self._judge_all()
            return
        for name in changed:
            self._judge(name)

    def _costs_more(self, _changes: int) -> bool:
        """Whether judging all nodes anew is cheaper than looking at so many."""
        return len(self._heap) > 4 * len(self._snapshot.nodes) + 64

    def _judge_all(self) -> None:
        self._verdicts = {name: self._verdict(name) for name in self._snapshot.nodes}
        self._heap = [(-each, name) for name, each in self._verdicts.items() if isinstance(each, int)]
        heapify(self._heap)

    def _judge(self, name: str) -> None:
        if name not in self._snapshot.nodes:
            self._verdicts.pop(name, None)
            return
        verdict = self._verdict(name)
        if verdict == self._verdicts.get(name):
            return
        self._verdicts[name] = verdict
        if isinstance(verdict, int):
            heappush(self._heap, (-verdict, name))

    def _verdict(self, name: str) -> Verdict:
        node = self._snapshot.nodes[name]
        return reasons(self._shape, node) or score(self._shape, node)


class GroupRanking(Ranking):
    """The ranking of a shape with a group: that of the shape without it, less for nodes that have pods of the group.

    So a node that changed is judged once and not once for every deployment whose pods have the same shape.
    """

    def __init__(self, shape: Shape, group: Group, snapshot: Snapshot, base: Ranking) -> None:
        super().__init__(shape, snapshot)
        self._group = group
        self._base = base

    def refresh(self) -> None:
        self._base.refresh()
        super().refresh()

    def message(self) -> str:
        return self._base.message()

    def refused_by(self) -> Counter[str]:
        return self._base.refused_by()

    def _costs_more(self, changes: int) -> bool:
        return changes > len(self._snapshot.nodes) // 16 + 8 or super()._costs_more(changes)

    def _judge_all(self) -> None:
        self._base.best()  # or its outdated entries, which are at the top, would be met again in every copy
        self._verdicts, self._heap = dict(self._base._verdicts), list(self._base._heap)
        for name in self._snapshot.nodes_of(self._group):
            self._judge(name)

    def _verdict(self, name: str) -> Verdict:
        verdict = self._base.verdicts[name]
        if isinstance(verdict, tuple):
            return verdict
        return verdict - crowding(self._snapshot.nodes[name].groups.get(self._group, 0))


class Rankings:
    """The rankings of the shapes that were asked for last."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._kept: OrderedDict[Shape, Ranking] = OrderedDict()

    def of(self, shape: Shape) -> Ranking:
        """The ranking for a shape, made where it is new."""
        found = self._kept.get(shape)
        if found is not None:
            self._kept.move_to_end(shape)
            return found
        if shape.group is None:
            return self._keep(shape, Ranking(shape, self._snapshot))
        base = self.of(replace(shape, group=None))
        return self._keep(shape, GroupRanking(shape, shape.group, self._snapshot, base))

    def _keep(self, shape: Shape, ranking: Ranking) -> Ranking:
        self._kept[shape] = ranking
        limit = max(8, _CACHED_VERDICTS // (1 + len(self._snapshot.nodes)))
        while len(self._kept) > limit:
            self._kept.popitem(last=False)
        return ranking

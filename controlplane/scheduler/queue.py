"""Which pod is next. Pure: time is an argument.

    new pod ─► active ─► (pop) ─► bound
                 ▲         ├─ no node fits ─► unschedulable ─┬─ something relevant changed, or 60 s ─┐
                 │         └─ bind failed ───► backoff ◄─────┴───────── its backoff is not over ─────┤
                 └───────────────────────────────┘ over                  it is over ─► active ───────┘

Active is ordered by priority, then by age; backoff is 1 s after the first attempt and doubles up to 10 s.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from controlplane.scheduler.podinfo import PodInfo

INITIAL_BACKOFF, MAX_BACKOFF = 1.0, 10.0
LONGEST_WAIT = 60.0
"""A pod is tried again after so many seconds, whatever happened: no missed event can strand it."""


class Cause(enum.Flag):
    """What a refused pod waits for, and what a change of the cluster may have mended."""

    ROOM = enum.auto()
    """A pod went, or a node offers more."""
    NODE = enum.auto()
    """A node's labels, taints or cordon changed, or a node came."""
    ANY = ROOM | NODE


@dataclass(slots=True, eq=False)
class Entry:
    """A pod that waits for a node."""

    pod: PodInfo
    attempts: int = 0
    tried: float = 0.0
    waits_for: Cause = Cause.ANY

    @property
    def ready_at(self) -> float:
        """When its backoff is over."""
        if not self.attempts:
            return 0.0
        return self.tried + min(INITIAL_BACKOFF * float(2 ** min(self.attempts - 1, 16)), MAX_BACKOFF)


class Queue:
    """The pods without a node, by uid; each is in one place only."""

    def __init__(self) -> None:
        self._active: list[tuple[int, float, int, Entry]] = []
        self._backoff: list[tuple[float, int, Entry]] = []
        self._unschedulable: dict[str, Entry] = {}
        self._entries: dict[str, Entry] = {}
        self._popped: dict[str, Entry] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._entries)

    def depths(self) -> dict[str, int]:
        """How many pods are where; `binding` are those that were popped."""
        waiting = {item[-1].pod.uid for item in self._backoff if self._entries.get(item[-1].pod.uid) is item[-1]}
        found = {"backoff": len(waiting), "unschedulable": len(self._unschedulable), "binding": len(self._popped)}
        return {"active": len(self._entries) - sum(found.values()), **found}

    def set(self, pod: PodInfo) -> None:
        """A pod without a node was added or changed. A change of what it asks for is tried at once."""
        if not self.update(pod):
            entry = self._entries[pod.uid] = Entry(pod)
            self._activate(entry)

    def update(self, pod: PodInfo) -> bool:
        """The same for a pod that is known already; False where it is not."""
        entry = self._entries.get(pod.uid)
        if entry is None:
            return False
        changed = entry.pod.shape != pod.shape or entry.pod.priority != pod.priority
        entry.pod = pod
        if changed and self._unschedulable.pop(pod.uid, None) is not None:
            entry.attempts = 0
            self._activate(entry)
        return True

    def discard(self, uid: str) -> None:
        """The pod is bound, gone, or no business of ours. Heap entries left behind are skipped when met."""
        self._entries.pop(uid, None)
        self._unschedulable.pop(uid, None)
        self._popped.pop(uid, None)

    def pop(self, now: float) -> Entry | None:
        """The next pod to place, which stays known until it is given back or discarded; None where none is due."""
        self._release(now)
        while self._active:
            entry = heappop(self._active)[-1]
            if self._entries.get(entry.pod.uid) is entry:
                entry.attempts += 1
                entry.tried = now
                self._popped[entry.pod.uid] = entry
                return entry
        return None

    def refused(self, entry: Entry, waits_for: Cause) -> None:
        """No node will do: it waits for such a change."""
        if self._give_back(entry):
            entry.waits_for = waits_for
            self._unschedulable[entry.pod.uid] = entry

    def failed(self, entry: Entry) -> None:
        """A node was found, but the bind failed: again after its backoff."""
        if self._give_back(entry):
            self._delay(entry)

    def moved(self, cause: Cause, now: float) -> None:
        """Something changed that may help the pods that wait for it."""
        for uid, entry in list(self._unschedulable.items()):
            if entry.waits_for & cause:
                del self._unschedulable[uid]
                self._place(entry, now)

    def due(self) -> float | None:
        """When `pop` may next return a pod that it would not return now: 0.0 at once, None never."""
        if self._active:
            return 0.0
        times = [self._backoff[0][0]] if self._backoff else []
        if self._unschedulable:
            times.append(next(iter(self._unschedulable.values())).tried + LONGEST_WAIT)
        return min(times, default=None)

    def _release(self, now: float) -> None:
        while self._backoff and self._backoff[0][0] <= now:
            entry = heappop(self._backoff)[-1]
            if self._entries.get(entry.pod.uid) is entry:
                self._activate(entry)
        for uid, entry in list(self._unschedulable.items()):
            if entry.tried + LONGEST_WAIT > now:
                break  # they are in the order in which they were tried
            del self._unschedulable[uid]
            self._activate(entry)

    def _give_back(self, entry: Entry) -> bool:
        return self._popped.pop(entry.pod.uid, None) is entry and self._entries.get(entry.pod.uid) is entry

    def _place(self, entry: Entry, now: float) -> None:
        if entry.ready_at <= now:
            self._activate(entry)
        else:
            self._delay(entry)

    def _activate(self, entry: Entry) -> None:
        self._sequence += 1
        heappush(self._active, (-entry.pod.priority, entry.pod.created, self._sequence, entry))
        if len(self._active) > 2 * len(self._entries) + 64:
            self._active = [item for item in self._active if self._entries.get(item[-1].pod.uid) is item[-1]]
            heapify(self._active)

    def _delay(self, entry: Entry) -> None:
        self._sequence += 1
        heappush(self._backoff, (entry.ready_at, self._sequence, entry))

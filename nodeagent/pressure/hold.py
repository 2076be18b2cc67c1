"""Which pressure conditions the node has: on at once, off only when it has been well for a while. Pure.

Without the hold a node that hovers about a threshold would take pods and evict them again in turns (the kubelet's
--eviction-pressure-transition-period).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nodeagent.pressure.thresholds import CONDITIONS, Signal, Threshold


@dataclass(slots=True)
class Hold:
    """Times are seconds on a monotonic clock."""

    thresholds: tuple[Threshold, ...]
    seconds: float
    _met_at: dict[str, float] = field(default_factory=dict)

    def met(self, signals: Mapping[str, Signal]) -> list[Threshold]:
        """The thresholds that are crossed now, in the order in which they are to be relieved: memory first."""
        order = list(CONDITIONS)
        found = [threshold for threshold in self.thresholds if threshold.is_met(signals)]
        return sorted(found, key=lambda threshold: order.index(threshold.signal))

    def conditions(self, met: Iterable[Threshold], now: float, also: Iterable[str] = ()) -> frozenset[str]:
        """The conditions that are True. `also`: those that something else calls for."""
        for type_ in (*(CONDITIONS[threshold.signal] for threshold in met), *also):
            self._met_at[type_] = now
        self._met_at = {type_: at for type_, at in self._met_at.items() if at == now or now - at < self.seconds}
        return frozenset(self._met_at)

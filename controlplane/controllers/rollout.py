"""How a deployment's replica sets are scaled. Pure: the arithmetic of Kubernetes' deployment controller.

Invariants of a rolling update, whatever the pods do: at most spec.replicas + maxSurge pods, and none taken away
that would leave fewer than spec.replicas - maxUnavailable available ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podplane import intstr
from podplane.v1 import apps_pb2

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"


@dataclass(slots=True)
class Size:
    """One replica set as the arithmetic sees it; `replicas` is what is asked for and changes while planning."""

    name: str
    replicas: int
    available: int
    """Available pods that are not surplus: status.availableReplicas, at most `replicas`."""
    created: int = 0
    desired: int | None = None
    """The deployment's replicas when this set was scaled last (annotation)."""
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """spec.replicas, and the strategy's bounds in pods."""

    replicas: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        """Never more pods than this; a deployment scaled to 0 has none at all."""
        return self.replicas + self.surge if self.replicas else 0

    @property
    def least(self) -> int:
        """Never fewer available pods than this by our doing."""
        return self.replicas - self.unavailable


def wanted(deployment: apps_pb2.Deployment) -> int:
    """spec.replicas, 1 where it is unset."""
    return deployment.spec.replicas if deployment.spec.HasField("replicas") else 1


def is_rolling(deployment: apps_pb2.Deployment) -> bool:
    return deployment.spec.strategy.type != "Recreate"


def bounds(deployment: apps_pb2.Deployment) -> Bounds:
    """maxSurge rounds up and maxUnavailable down; where both come to 0, one pod may be unavailable."""
    replicas = wanted(deployment)
    if not is_rolling(deployment):
        return Bounds(replicas, 0, 0)
    rolling = deployment.spec.strategy.rollingUpdate
    quarter = intstr.of("25%")
    surge = intstr.scaled(rolling.maxSurge if rolling.HasField("maxSurge") else quarter, replicas, round_up=True)
    unavailable = intstr.scaled(
        rolling.maxUnavailable if rolling.HasField("maxUnavailable") else quarter, replicas, round_up=False
    )
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(replicas, surge, min(unavailable, replicas))


def new_set_replicas(limits: Bounds, rolling: bool, current: int, others: int) -> int:
    """What the newest set is scaled to, from `current`, beside `others` pods of the old sets."""
    if not rolling or current > limits.replicas:
        return limits.replicas
    room = limits.replicas + limits.surge - current - others
    return current + max(0, min(room, limits.replicas - current))


def roll(limits: Bounds, new: Size, old: Sequence[Size]) -> None:
    """One step of a rolling update: the new set up, or the old ones down."""
    scaled = new_set_replicas(limits, True, new.replicas, sum(each.replicas for each in old))
    if scaled != new.replicas:
        new.replicas = scaled
        return
    total = new.replicas + sum(each.replicas for each in old)
    spare = total - limits.least - (new.replicas - new.available)
    if spare <= 0:
        return
    oldest_first = sorted(old, key=lambda each: (each.created, each.name))
    _remove_unhealthy(oldest_first, spare)
    _remove_available(limits, new, oldest_first)


def _remove_unhealthy(old: Sequence[Size], most: int) -> None:
    """Pods of old sets that are not available go first: nothing is lost with them."""
    for each in old:
        count = max(0, min(most, each.replicas - each.available))
        each.replicas -= count
        most -= count


def _remove_available(limits: Bounds, new: Size, old: Sequence[Size]) -> None:
    left = new.available + sum(min(each.available, each.replicas) for each in old) - limits.least
    for each in old:
        count = max(0, min(left, each.replicas))
        each.replicas -= count
        each.available = min(each.available, each.replicas)
        left -= count


def scale(limits: Bounds, rolling: bool, new: Size | None, old: Sequence[Size], status_replicas: int) -> None:
    """spec.replicas changed (or the deployment is paused): spread the difference over the sets.

    During a rollout every set grows or shrinks in proportion to its size, so that the risk stays as it was.
    """
    active = [each for each in (*old, *([new] if new else [])) if each.replicas > 0]
    latest = new or max(old, key=lambda each: (each.created, each.name), default=None)
    if len(active) <= 1:
        only = active[0] if active else latest
        if only is not None:
            only.replicas = limits.replicas
        return
    if new is not None and new.desired == new.replicas == new.available:
        for each in old:
            each.replicas = 0
        return
    if rolling:
        _proportionally(limits, active, status_replicas)


def _proportionally(limits: Bounds, active: list[Size], status_replicas: int) -> None:
    add = limits.most - sum(each.replicas for each in active)
    # Largest first; of equal ones the newest grows and the oldest shrinks first.
    active.sort(key=lambda each: (-each.replicas, -each.created if add > 0 else each.created, each.name))
    added = 0
    planned = [each.replicas for each in active]
    for index, each in enumerate(active):
        share = _share(limits, each, status_replicas)
        share = min(share, add - added) if add > 0 else max(share, add - added)
        if add and each.replicas:
            planned[index] += share
            added += share
    planned[0] = max(0, planned[0] + add - added)
    for each, replicas in zip(active, planned, strict=True):
        each.replicas = max(0, replicas)


def _share(limits: Bounds, each: Size, status_replicas: int) -> int:
    """By how much a set would change, to keep its part of the deployment."""
    if limits.replicas == 0:
        return -each.replicas
    before = each.max or status_replicas
    if before <= 0:
        return 0
    # Rounds half away from zero, as Go does.
    return (2 * each.replicas * (limits.replicas + limits.surge) + before) // (2 * before) - each.replicas

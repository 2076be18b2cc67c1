"""Node lifecycle round by round: the test says what time it is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from controlplane.controllers import nodes
from controlplane.controllers.facts import is_ready, pod_condition
from controlplane.controllers.nodes import NodeController
from controlplane.controllers.recorder import Recorder
from podplane import statuses
from podplane.errors import NotFound
from podplane.kinds import EVENT, NODE, POD
from podplane.v1 import node_pb2, pod_pb2
from tests.controlplane.controllers.world import World, pod


class Heard:
    """When agents spoke last."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def last_seen(self, name: str) -> float | None:
        return self.at.get(name)


class Rounds:
    def __init__(self, world: World) -> None:
        self.world, self.heard = world, Heard()
        self.recorder = Recorder(world.objects, "node-controller")
        self.restart()

    def restart(self) -> None:
        self.controller = NodeController(self.world.objects, self.heard, self.recorder, 12, time.time)

    async def at(self, now: float, *speaking: str) -> None:
        """One round, in which these nodes have just spoken."""
        self.heard.at.update(dict.fromkeys(speaking, now))
        await self.controller.look(now)


@pytest.fixture
def rounds(world: World) -> Rounds:
    return Rounds(world)


async def on_node(world: World, name: str, node: str, seconds: int = 15) -> None:
    made = pod(name)
    made.spec.nodeName = node
    for key in ("not-ready", "unreachable"):
        made.spec.tolerations.add(
            key=f"node.kubernetes.io/{key}", operator="Exists", effect="NoExecute", tolerationSeconds=seconds
        )
    await world.set_ready(await world.objects.create(made))


def ready(world: World, node: str) -> tuple[str, str]:
    live: node_pb2.Node = world.objects.get(NODE, "", node)
    found = next(each for each in live.status.conditions if each.type == "Ready")
    return found.status, found.reason


def taints(world: World, node: str) -> set[tuple[str, str]]:
    return {(each.key.rpartition("/")[2], each.effect) for each in world.objects.get(NODE, "", node).spec.taints}


def live(world: World, name: str) -> pod_pb2.Pod | None:
    try:
        found: pod_pb2.Pod = world.objects.get(POD, "default", name)
    except NotFound:
        return None
    return found


def there(world: World, name: str) -> pod_pb2.Pod:
    found = live(world, name)
    assert found is not None
    return found


async def test_a_silent_node_becomes_unknown_and_its_pods_are_lost_and_removed(world: World, rounds: Rounds) -> None:
    for name in ("node-1", "node-2", "node-3"):
        await world.add_node(name)
    await on_node(world, "web", "node-1")
    await rounds.at(100, "node-1", "node-2", "node-3")
    assert taints(world, "node-1") == set()
    await rounds.at(111, "node-2", "node-3")
    assert ready(world, "node-1") == ("True", "AgentReady")
    await rounds.at(113, "node-2", "node-3")
    assert ready(world, "node-1") == ("Unknown", "NodeStatusUnknown")
    assert taints(world, "node-1") == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
    shown = there(world, "web")
    condition = pod_condition(shown, "Ready")
    assert condition is not None
    assert (condition.status, condition.reason) == ("Unknown", "NodeStatusUnknown")
    await rounds.at(127, "node-2", "node-3")
    found = there(world, "web")
    assert not found.metadata.HasField("deletionTimestamp")
    await rounds.at(128, "node-2", "node-3")
    lost = there(world, "web")
    assert lost.status.reason == "NodeLost"
    assert lost.status.message == "Node node-1 which was running pod web is unresponsive"
    assert lost.metadata.HasField("deletionTimestamp")
    await rounds.at(133, "node-2", "node-3")
    assert live(world, "web") is None
    await rounds.recorder.flush()
    reasons = {(each.involvedObject.name, each.reason) for each in world.objects.list(EVENT)}
    assert ("node-1", "NodeNotReady") in reasons


async def test_a_node_that_comes_back_in_time_keeps_its_pods(world: World, rounds: Rounds) -> None:
    for name in ("node-1", "node-2", "node-3"):
        await world.add_node(name)
    await on_node(world, "web", "node-1")
    await rounds.at(100, "node-1", "node-2", "node-3")
    await rounds.at(113, "node-2", "node-3")
    await rounds.at(127, "node-1", "node-2", "node-3")
    assert ready(world, "node-1") == ("True", "AgentReady")
    assert taints(world, "node-1") == set()
    shown = there(world, "web")
    condition = pod_condition(shown, "Ready")
    assert condition is not None
    assert condition.status == "True"
    revision = world.objects.cache.revision
    await rounds.at(130, "node-1", "node-2", "node-3")
    await rounds.at(140, "node-1", "node-2", "node-3")
    assert world.objects.cache.revision == revision, "nothing is written when nothing changes"
    assert live(world, "web") is not None


async def test_every_pod_of_a_silent_node_that_has_not_ended_is_unknown_and_later_as_it_was(
    world: World, rounds: Rounds
) -> None:
    for name in ("node-1", "node-2", "node-3"):
        await world.add_node(name)
    for name in ("ready", "unready", "unreported", "ended"):
        made = pod(name)
        made.spec.nodeName = "node-1"
        await world.objects.create(made)
    await world.set_ready(there(world, "ready"))
    await world.set_ready(there(world, "unready"), False)
    await world.objects.mutate(POD, "default", "ended", _succeed, status=True)
    before = {name: statuses.shown(there(world, name)) for name in ("ready", "unready", "unreported", "ended")}
    await rounds.at(100, "node-1", "node-2", "node-3")
    await rounds.at(113, "node-2", "node-3")
    during = {name: statuses.shown(there(world, name)) for name in before}
    assert during == {"ready": "Unknown", "unready": "Unknown", "unreported": "Unknown", "ended": before["ended"]}
    await rounds.at(114, "node-1", "node-2", "node-3")
    assert {name: statuses.shown(there(world, name)) for name in before} == before
    assert [is_ready(there(world, name)) for name in ("ready", "unready", "unreported")] == [True, False, False]


def _succeed(found: pod_pb2.Pod) -> bool:
    found.status.phase = "Succeeded"
    return True


async def test_when_most_nodes_are_silent_nothing_is_evicted(world: World, rounds: Rounds) -> None:
    for name in ("node-1", "node-2", "node-3"):
        await world.add_node(name)
    await on_node(world, "web", "node-1")
    await rounds.at(100, "node-1", "node-2", "node-3")
    for now in (113, 128, 150, 300):
        await rounds.at(now, "node-3")
    assert ready(world, "node-1")[0] == "Unknown"
    kept = there(world, "web")
    assert not kept.metadata.HasField("deletionTimestamp")
    await rounds.recorder.flush()
    assert "EvictionsStopped" in {each.reason for each in world.objects.list(EVENT)}
    await rounds.at(301, "node-2", "node-3")
    await rounds.at(315, "node-2", "node-3")
    kept = there(world, "web")
    assert not kept.metadata.HasField("deletionTimestamp"), "tolerations begin anew"
    await rounds.at(317, "node-2", "node-3")
    lost = there(world, "web")
    assert lost.status.reason == "NodeLost"


async def test_after_a_restart_every_node_has_its_full_grace(world: World, rounds: Rounds) -> None:
    await world.add_node("node-1")
    await rounds.at(100, "node-1")
    rounds.restart()
    rounds.heard.at.clear()
    await rounds.at(500)
    await rounds.at(511)
    assert ready(world, "node-1")[0] == "True"
    await rounds.at(513)
    assert ready(world, "node-1")[0] == "Unknown"


async def test_a_pod_that_tolerates_nothing_goes_at_once_and_one_that_tolerates_for_ever_stays(
    world: World, rounds: Rounds
) -> None:
    for name in ("node-1", "node-2", "node-3"):
        await world.add_node(name)
    await on_node(world, "plain", "node-1", 0)
    stays = pod("stays")
    stays.spec.nodeName = "node-1"
    stays.spec.tolerations.add(operator="Exists")
    await world.objects.create(stays)
    await rounds.at(100, "node-1", "node-2", "node-3")
    for now in (113, 119, 400):
        await rounds.at(now, "node-2", "node-3")
    assert live(world, "plain") is None
    assert live(world, "stays") is not None


async def test_a_node_that_is_not_ready_but_speaks_is_tainted_and_its_pods_are_deleted_with_grace(
    world: World, rounds: Rounds
) -> None:
    await world.add_node("node-1")
    await on_node(world, "web", "node-1")

    def broken(node: node_pb2.Node) -> bool:
        node.status.conditions[0].status = "False"
        return True

    await world.objects.mutate(NODE, "", "node-1", broken, status=True)
    await rounds.at(100, "node-1")
    assert taints(world, "node-1") == {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}
    await rounds.at(115, "node-1")
    leaving = there(world, "web")
    assert leaving.metadata.deletionGracePeriodSeconds == 30
    assert leaving.status.reason == ""


async def test_a_cordon_and_pressure_become_taints_and_foreign_taints_stay(world: World, rounds: Rounds) -> None:
    await world.add_node("node-1")

    def edit(node: node_pb2.Node) -> bool:
        node.spec.unschedulable = True
        node.spec.taints.add(key="team", value="db", effect="NoSchedule")
        return True

    await world.objects.mutate(NODE, "", "node-1", edit)
    await world.objects.mutate(
        NODE,
        "",
        "node-1",
        lambda n: n.status.conditions.add(type="DiskPressure", status="True") is not None,
        status=True,
    )
    await rounds.at(100, "node-1")
    expected = {("unschedulable", "NoSchedule"), ("disk-pressure", "NoSchedule"), ("team", "NoSchedule")}
    assert taints(world, "node-1") == expected


async def test_taints_follow_a_change_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that becomes Ready takes pods without waiting for the next round, which never comes here."""
    monkeypatch.setattr(nodes, "LOOK_EVERY", 3600.0)

    def set_ready(status: str) -> Callable[[node_pb2.Node], bool]:
        def change(live: node_pb2.Node) -> bool:
            (condition,) = (each for each in live.status.conditions if each.type == "Ready")
            condition.status = status
            return True

        return change

    def tainted() -> bool:
        return bool(world.objects.get(NODE, "", "node-1").spec.taints)

    await world.add_node("node-1")
    world.start(nodes.run(world.objects, Heard(), Recorder(world.objects, "node-controller"), 12))
    await world.objects.mutate(NODE, "", "node-1", set_ready("False"), status=True)
    await world.until(tainted)
    await world.objects.mutate(NODE, "", "node-1", set_ready("True"), status=True)
    await world.until(lambda: not tainted())

"""The scheduling loop over the real store."""

from __future__ import annotations

from controlplane.scheduler import Scheduler
from podplane.kinds import EVENT, NODE, POD
from podplane.v1 import node_pb2, pod_pb2
from tests.controlplane.controllers.world import World, pod


def scheduled(world: World, name: str) -> tuple[str, str, str]:
    """Status, reason and message of the pod's PodScheduled condition."""
    conditions = world.objects.get(POD, "default", name).status.conditions
    found = next((each for each in conditions if each.type == "PodScheduled"), pod_pb2.PodCondition())
    return found.status, found.reason, found.message


def node_of(world: World, name: str) -> str:
    bound: str = world.objects.get(POD, "default", name).spec.nodeName
    return bound


async def test_pods_are_spread_over_the_nodes_and_an_event_says_where(world: World) -> None:
    for name in ("node-1", "node-2", "node-3"):
        await world.add_node(name)
    world.start(Scheduler(world.objects).run())
    for index in range(6):
        await world.objects.create(pod(f"web-{index}", cpu="100m", app="web"))
    await world.until(lambda: all(each.spec.nodeName for each in world.pods()))
    counts = [sum(each.spec.nodeName == name for each in world.pods()) for name in ("node-1", "node-2", "node-3")]
    assert counts == [2, 2, 2]
    words = f"Successfully assigned default/web-0 to {node_of(world, 'web-0')}"
    await world.until(lambda: words in {each.message for each in world.objects.list(EVENT)})


async def test_a_pod_that_fits_nowhere_says_why_and_starts_when_room_is_made(world: World) -> None:
    await world.add_node("node-1", cpu="2")
    world.start(Scheduler(world.objects).run())
    await world.objects.create(pod("first", cpu="1500m"))
    await world.until(lambda: node_of(world, "first"))
    await world.objects.create(pod("second", cpu="1"))
    status, reason, message = await world.until(lambda: (s := scheduled(world, "second"))[0] and s)
    assert (status, reason) == ("False", "Unschedulable")
    assert message == (
        "0/1 nodes are available: 1 Insufficient cpu. "
        "Nearest is node-1: free cpu for 1000m (now 500m), or request less."
    )
    revision = await world.settled()
    assert world.objects.cache.revision == revision
    await world.objects.delete(POD, "default", "first", grace=0)
    await world.until(lambda: node_of(world, "second") == "node-1")
    await world.until(lambda: scheduled(world, "second")[0] == "True")


async def test_without_nodes_a_pod_waits_for_the_first(world: World) -> None:
    world.start(Scheduler(world.objects).run())
    await world.objects.create(pod("early"))
    await world.until(lambda: scheduled(world, "early")[2] == "no nodes available to schedule pods")
    await world.add_node("node-1")
    await world.until(lambda: node_of(world, "early") == "node-1")


async def test_uncordoning_a_node_lets_the_pods_in_that_waited_for_it(world: World) -> None:
    await world.add_node("node-1")

    def cordon(live: node_pb2.Node, value: bool = True) -> bool:
        live.spec.unschedulable = value
        return True

    await world.objects.mutate(NODE, "", "node-1", cordon)
    world.start(Scheduler(world.objects).run())
    await world.objects.create(pod("waits"))
    text = "0/1 nodes are available: 1 node(s) were unschedulable. Nearest is node-1: uncordon it."
    await world.until(lambda: scheduled(world, "waits")[2] == text)
    await world.objects.mutate(NODE, "", "node-1", lambda live: cordon(live, False))
    await world.until(lambda: node_of(world, "waits") == "node-1")


async def test_another_schedulers_pod_is_left_alone(world: World) -> None:
    await world.add_node("node-1")
    foreign = pod("foreign")
    foreign.spec.schedulerName = "mine"
    world.start(Scheduler(world.objects).run())
    await world.objects.create(foreign)
    await world.objects.create(pod("plain"))
    await world.until(lambda: node_of(world, "plain"))
    assert node_of(world, "foreign") == ""


async def test_a_node_is_never_overcommitted_however_fast_pods_come(world: World) -> None:
    for index in range(4):
        await world.add_node(f"node-{index}", cpu="2")
    world.start(Scheduler(world.objects).run())
    await world.objects.transact(world.objects.create(pod(f"p-{index}", cpu="500m")) for index in range(30))
    await world.until(lambda: sum(bool(each.spec.nodeName) for each in world.pods()) == 16)
    await world.until(lambda: sum(scheduled(world, f"p-{index}")[1] == "Unschedulable" for index in range(30)) == 14)
    counts = {
        name: sum(each.spec.nodeName == name for each in world.pods()) for name in map("node-{}".format, range(4))
    }
    assert set(counts.values()) == {4}


async def test_a_restarted_scheduler_counts_what_is_bound_already(world: World) -> None:
    await world.add_node("node-1", cpu="1")
    first = world.start(Scheduler(world.objects).run())
    await world.objects.create(pod("one", cpu="1"))
    await world.until(lambda: node_of(world, "one"))
    await world.stop(first)
    await world.objects.create(pod("two", cpu="1"))
    world.start(Scheduler(world.objects).run())
    await world.until(lambda: scheduled(world, "two")[1] == "Unschedulable")
    assert node_of(world, "two") == ""


async def test_a_pod_that_names_its_node_is_counted_there_and_not_bound_again(world: World) -> None:
    await world.add_node("node-1", cpu="1")
    named = pod("named", cpu="1")
    named.spec.nodeName = "node-1"
    await world.objects.create(named)
    world.start(Scheduler(world.objects).run())
    await world.objects.create(pod("other", cpu="1"))
    await world.until(lambda: scheduled(world, "other")[1] == "Unschedulable")
    assert scheduled(world, "named") == ("", "", "")

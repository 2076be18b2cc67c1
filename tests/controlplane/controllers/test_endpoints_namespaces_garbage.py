"""Endpoint slices, namespaces and sweeps over the real store."""

from __future__ import annotations

import time

from controlplane.controllers import endpoints, garbage, namespaces, slices
from controlplane.controllers.queue import WorkQueue, backoff
from podplane import intstr
from podplane.kinds import ENDPOINT_SLICE, EVENT, NAMESPACE, NODE, POD, SERVICE
from podplane.v1 import event_pb2, namespace_pb2, pod_pb2, service_pb2
from tests.controlplane.controllers.world import World, pod


def service(name: str = "web", port: int | str = 8080, **selector: str) -> service_pb2.Service:
    made = service_pb2.Service(apiVersion="v1", kind="Service")
    made.metadata.name, made.metadata.namespace, made.metadata.uid = name, "default", f"uid-{name}"
    made.spec.selector.update(selector or {"app": "web"})
    made.spec.ports.add(name="http", port=80, targetPort=intstr.of(port))
    return made


def backend(index: int, *, ready: bool = True, named: int = 0) -> pod_pb2.Pod:
    made = pod(f"web-{index:03}", app="web")
    made.metadata.uid = f"uid-{index}"
    made.spec.nodeName, made.status.podIP = "node-1", f"10.244.{index // 250}.{index % 250 + 1}"
    made.status.conditions.add(type="Ready", status="True" if ready else "False")
    if named:
        made.spec.containers[0].ports.add(name="http", containerPort=named)
    return made


def test_slices_hold_at_most_a_hundred_and_change_as_little_as_they_can() -> None:
    pods = [backend(index) for index in range(250)]
    first = slices.plan(service(), pods, [])
    assert [len(each.endpoints) for each in first.create] == [100, 100, 50]
    assert slices.plan(service(), pods, first.create) == slices.Plan()
    without = [each for each in pods if each.metadata.name != "web-007"]
    after = slices.plan(service(), [*without, backend(900)], first.create)
    assert (len(after.create), len(after.update), len(after.delete)) == (0, 1, 0)
    assert len(after.update[0].endpoints) == 100


def test_conditions_follow_readiness_and_termination() -> None:
    going, unready = backend(1), backend(2, ready=False)
    going.metadata.deletionTimestamp.FromSeconds(5)
    made = slices.plan(service(), [going, unready, backend(3)], []).create[0]
    assert [(e.conditions.ready, e.conditions.serving, e.conditions.terminating) for e in made.endpoints] == [
        (False, True, True),
        (False, False, False),
        (True, True, False),
    ]
    published = service()
    published.spec.publishNotReadyAddresses = True
    assert all(e.conditions.ready for e in slices.plan(published, [going, unready], []).create[0].endpoints)


def test_a_named_port_that_differs_between_pods_makes_a_slice_for_each_number() -> None:
    made = slices.plan(service(port="http"), [backend(1, named=80), backend(2, named=81), backend(3, named=80)], [])
    assert sorted((each.ports[0].port, len(each.endpoints)) for each in made.create) == [(80, 2), (81, 1)]


def test_finished_pods_and_those_without_address_have_no_endpoint() -> None:
    finished, early = backend(1), backend(2)
    finished.status.phase = "Succeeded"
    early.status.podIP = ""
    assert slices.plan(service(), [finished, early], []) == slices.Plan()


async def test_slices_follow_the_pods_and_go_with_the_service(world: World) -> None:
    world.start(endpoints.run(world.objects, WorkQueue()))
    made = service()
    made.metadata.ClearField("uid")
    await world.objects.create(made)
    created = await world.objects.create(pod("web-1", app="web"))
    await world.set_ready(created)

    def addresses() -> list[tuple[str, bool]]:
        return [
            (each.targetRef.name, each.conditions.ready)
            for one in world.objects.list(ENDPOINT_SLICE)
            for each in one.endpoints
        ]

    await world.until(lambda: addresses() == [("web-1", True)])
    (one,) = world.objects.list(ENDPOINT_SLICE)
    assert one.metadata.labels["kubernetes.io/service-name"] == "web"
    assert one.metadata.ownerReferences[0].name == "web"
    await world.set_ready(created, False)
    await world.until(lambda: addresses() == [("web-1", False)])

    def relabel(live: pod_pb2.Pod) -> bool:
        live.metadata.labels["app"] = "other"
        return True

    await world.objects.mutate(POD, "default", "web-1", relabel)
    await world.until(lambda: addresses() == [])
    await world.objects.mutate(POD, "default", "web-1", lambda p: p.metadata.labels.update(app="web") is None)
    await world.until(lambda: len(addresses()) == 1)
    await world.objects.delete(SERVICE, "default", "web")
    await world.until(lambda: not world.objects.list(ENDPOINT_SLICE))


async def test_a_deleted_namespace_is_emptied_and_goes(world: World) -> None:
    world.start(namespaces.run(world.objects, WorkQueue()))
    await world.until(lambda: world.objects.cache.get(NAMESPACE, "", "kube-system"))
    made = namespace_pb2.Namespace(apiVersion="v1", kind="Namespace")
    made.metadata.name = "team"
    await world.objects.create(made)
    await world.objects.create(pod("web", namespace="team"))
    other = service()
    other.metadata.namespace = "team"
    await world.objects.create(other)
    await world.objects.delete(NAMESPACE, "", "team")
    await world.until(lambda: world.objects.cache.get(NAMESPACE, "", "team") is None)
    assert not world.pods()


async def test_sweeps_take_old_events_surplus_pods_and_pods_of_nodes_that_are_gone(world: World) -> None:
    sweeper, now = garbage.Sweeper(world.objects), time.time()
    for name, age in (("old", 3700), ("new", 100)):
        event = event_pb2.Event(apiVersion="v1", kind="Event", reason="Test")
        event.metadata.name, event.metadata.namespace = name, "default"
        event.lastTimestamp.FromSeconds(int(now - age))
        await world.objects.create(event)
    await world.add_node("node-1")
    for name, node in (("kept", "node-1"), ("stray", "node-2")):
        made = pod(name)
        made.spec.nodeName = node
        await world.objects.create(made)
    await sweeper.sweep(now, 1000)
    await sweeper.sweep(now, 1039)
    assert [each.metadata.name for each in world.objects.list(EVENT)] == ["new"]
    assert len(world.pods()) == 2
    await sweeper.sweep(now, 1041)
    assert [each.metadata.name for each in world.pods()] == ["kept"]
    assert world.objects.list(NODE)


def test_the_oldest_finished_pods_over_the_number_go() -> None:
    pods = []
    for index, phase in enumerate(("Succeeded", "Failed", "Running", "Succeeded")):
        made = pod(f"p{index}")
        made.metadata.creationTimestamp.FromSeconds(100 - index)
        made.status.phase = phase
        pods.append(made)
    assert [each.metadata.name for each in garbage.surplus_finished(pods, 1)] == ["p3", "p1"]


async def test_a_key_added_while_it_is_worked_on_is_taken_again_after_that() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b", "a is not worked on twice at once"
    queue.done("a")
    assert await queue.get() == "a"
    assert len(queue) == 0


async def test_retries_back_off_and_an_earlier_wish_wins() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert [queue.failed("a") for _ in range(3)] == [backoff(1), backoff(2), backoff(3)]
    queue.succeeded("a")
    assert queue.failed("a") == backoff(1)
    queue.add_after("b", 3600)
    queue.add("b")
    assert await queue.get() == "b"
    queue.close()

"""Deployments and replica sets over the real store, with nodes that make every pod ready."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from controlplane.controllers import deployment, garbage, replicaset
from controlplane.controllers.facts import controller_of, is_active, is_ready
from controlplane.controllers.owned import Owned
from controlplane.controllers.queue import WorkQueue
from controlplane.controllers.recorder import Recorder
from podplane.kinds import DEPLOYMENT, EVENT, POD, REPLICA_SET
from podplane.v1 import apps_pb2
from tests.controlplane.controllers.world import World, pod


def web(replicas: int = 3, image: str = "one") -> apps_pb2.Deployment:
    made = apps_pb2.Deployment(apiVersion="apps/v1", kind="Deployment")
    made.metadata.name, made.metadata.namespace = "web", "default"
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    made.spec.template.spec.containers.add(name="main", image=image)
    made.spec.progressDeadlineSeconds = 600
    return made


def start(world: World) -> list[asyncio.Task[None]]:
    recorder = Recorder(world.objects, "test")
    return [
        world.start(recorder.run()),
        world.start(deployment.run(world.objects, WorkQueue(), recorder, time.time)),
        world.start(replicaset.run(world.objects, WorkQueue(), recorder, time.time)),
    ]


def complete(world: World, image: str, replicas: int) -> bool:
    live = world.objects.list(DEPLOYMENT)[0]
    status = live.status
    pods = [each for each in world.pods() if is_active(each)]
    return (
        (status.replicas, status.updatedReplicas, status.availableReplicas) == (replicas,) * 3
        and len(pods) == replicas
        and all(each.spec.containers[0].image == image and is_ready(each) for each in pods)
    )


async def set_image(world: World, image: str) -> None:
    def change(live: apps_pb2.Deployment) -> bool:
        live.spec.template.spec.containers[0].image = image
        return True

    await world.objects.mutate(DEPLOYMENT, "default", "web", change)


async def test_a_deployment_becomes_ready_pods_and_then_writes_nothing(world: World) -> None:
    start(world)
    world.start(world.play_nodes())
    await world.objects.create(web())
    await world.until(lambda: complete(world, "one", 3))
    revision = await world.settled()
    live = world.objects.list(DEPLOYMENT)[0]
    reasons = {each.type: (each.status, each.reason) for each in live.status.conditions}
    assert reasons == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert live.metadata.annotations["deployment.kubernetes.io/revision"] == "1"
    for each in world.pods():
        owner = controller_of(each.metadata)
        assert owner is not None
        assert each.metadata.name.startswith(f"{owner.name}-")
        assert each.metadata.labels["pod-template-hash"] == owner.name.removeprefix("web-")
    assert world.objects.cache.revision == revision


async def test_a_rollout_replaces_every_pod_and_keeps_the_old_set_as_history(world: World) -> None:
    start(world)
    world.start(world.play_nodes())
    await world.objects.create(web(4))
    await world.until(lambda: complete(world, "one", 4))
    await set_image(world, "two")
    await world.until(lambda: complete(world, "two", 4))
    await world.settled()
    sizes = sorted(
        (each.spec.replicas, each.metadata.annotations["deployment.kubernetes.io/revision"])
        for each in world.objects.list(REPLICA_SET)
    )
    assert sizes == [(0, "1"), (4, "2")]
    await set_image(world, "one")
    await world.until(lambda: complete(world, "one", 4))
    assert len(world.objects.list(REPLICA_SET)) == 2
    await world.until(
        lambda: world.objects.list(DEPLOYMENT)[0].metadata.annotations["deployment.kubernetes.io/revision"] == "3"
    )


async def test_a_rollout_whose_pods_never_get_ready_keeps_the_old_ones(world: World) -> None:
    start(world)
    world.start(world.play_nodes(refuses=lambda each: each.spec.containers[0].image == "bad"))
    await world.objects.create(web(4))
    await world.until(lambda: complete(world, "one", 4))
    await set_image(world, "bad")
    await world.until(lambda: any(each.spec.containers[0].image == "bad" for each in world.pods()))
    await world.settled()
    active = [each for each in world.pods() if is_active(each)]
    assert sum(each.spec.containers[0].image == "one" and is_ready(each) for each in active) == 3
    assert len(active) == 5


async def test_recreate_waits_until_the_old_pods_are_gone(world: World) -> None:
    start(world)
    made = web(2)
    made.spec.strategy.type = "Recreate"
    await world.objects.create(made)
    agents = world.start(world.play_nodes())
    await world.until(lambda: complete(world, "one", 2))
    await world.stop(agents)
    await set_image(world, "two")
    await world.until(lambda: all(each.metadata.HasField("deletionTimestamp") for each in world.pods()))
    await world.settled()
    assert {each.spec.containers[0].image for each in world.pods()} == {"one"}
    world.start(world.play_nodes())
    await world.until(lambda: complete(world, "two", 2))


def _has_moved(world: World, before: int) -> bool:
    return len(world.pods()) != before or before == 20


async def test_controllers_that_are_restarted_in_the_middle_converge(world: World) -> None:
    world.start(world.play_nodes())
    await world.objects.create(web(20))
    for _ in range(6):
        tasks = start(world)
        await world.until(partial(_has_moved, world, len(world.pods())))
        for task in tasks:
            await world.stop(task)
    start(world)
    await world.until(lambda: complete(world, "one", 20))


async def test_scaling_down_deletes_pods_and_says_so(world: World) -> None:
    start(world)
    world.start(world.play_nodes())
    await world.objects.create(web(5))
    await world.until(lambda: complete(world, "one", 5))

    def change(live: apps_pb2.Deployment) -> bool:
        live.spec.replicas = 2
        return True

    await world.objects.mutate(DEPLOYMENT, "default", "web", change)
    await world.until(lambda: complete(world, "one", 2))
    name = world.objects.list(REPLICA_SET)[0].metadata.name
    await world.until(
        lambda: f"Scaled down replica set {name} from 5 to 2" in {each.message for each in world.objects.list(EVENT)}
    )


async def test_an_orphan_is_adopted_and_a_relabelled_pod_is_released_and_replaced(world: World) -> None:
    orphan = await world.objects.create(pod("lonely", app="web"))
    start(world)
    world.start(world.play_nodes())
    owner = apps_pb2.ReplicaSet(apiVersion="apps/v1", kind="ReplicaSet")
    owner.metadata.name, owner.metadata.namespace = "web", "default"
    owner.spec.replicas = 2
    owner.spec.selector.matchLabels["app"] = "web"
    owner.spec.template.metadata.labels["app"] = "web"
    owner.spec.template.spec.containers.add(name="main", image="one")
    await world.objects.create(owner)
    await world.until(lambda: len(world.pods()) == 2 and all(controller_of(each.metadata) for each in world.pods()))
    assert orphan.metadata.uid in {each.metadata.uid for each in world.pods()}

    def relabel(live: object) -> bool:
        live.metadata.labels["app"] = "debug"  # type: ignore[attr-defined]
        return True

    await world.objects.mutate(POD, "default", "lonely", relabel)
    await world.until(lambda: len(world.pods()) == 3)
    released = world.objects.get(POD, "default", "lonely")
    await world.settled()
    assert controller_of(world.objects.get(POD, "default", "lonely").metadata) is None
    assert released.metadata.uid == orphan.metadata.uid
    assert len(world.pods()) == 3


async def test_deleting_a_deployment_takes_its_sets_and_pods_along(world: World) -> None:
    start(world)
    world.start(garbage.run(world.objects, WorkQueue()))
    world.start(world.play_nodes())
    await world.objects.create(web(3))
    await world.until(lambda: complete(world, "one", 3))
    await world.objects.delete(DEPLOYMENT, "default", "web")
    await world.until(lambda: not world.pods() and not world.objects.list(REPLICA_SET))


async def test_foreground_deletion_ends_the_deployment_after_its_pods(world: World) -> None:
    start(world)
    world.start(garbage.run(world.objects, WorkQueue()))
    agents = world.start(world.play_nodes())
    await world.objects.create(web(2))
    await world.until(lambda: complete(world, "one", 2))
    await world.stop(agents)
    await world.objects.delete(DEPLOYMENT, "default", "web", propagation="Foreground")
    await world.until(
        lambda: world.pods() and all(each.metadata.HasField("deletionTimestamp") for each in world.pods())
    )
    await world.settled()
    assert world.objects.list(DEPLOYMENT)
    world.start(world.play_nodes())
    await world.until(lambda: not world.objects.list(DEPLOYMENT) and not world.pods())


async def test_orphaning_leaves_the_replica_set_without_owner(world: World) -> None:
    tasks = start(world)
    world.start(garbage.run(world.objects, WorkQueue()))
    world.start(world.play_nodes())
    await world.objects.create(web(1))
    await world.until(lambda: complete(world, "one", 1))
    await world.stop(tasks[1])
    await world.objects.delete(DEPLOYMENT, "default", "web", propagation="Orphan")
    await world.until(lambda: not world.objects.list(DEPLOYMENT))
    await world.settled()
    (left,) = world.objects.list(REPLICA_SET)
    assert not left.metadata.ownerReferences
    assert len(world.pods()) == 1


async def test_an_orphan_that_another_owner_has_adopted_meanwhile_is_not_ones_own(world: World) -> None:
    first, second = web(), web()
    first.metadata.name, second.metadata.name = "first", "second"
    first, second = await world.objects.create(first), await world.objects.create(second)
    seen = await world.objects.create(pod("orphan", app="web"))
    owned = Owned(world.objects, POD)
    adopted = await owned.adopt(seen, first)
    assert adopted is not None
    # As it was seen it has no owner still.
    assert await owned.adopt(seen, second) is None
    assert owned.of(first.metadata.uid) == [adopted]
    await owned.release(adopted, first)
    assert await owned.adopt(seen, second) is not None

"""Deletion: what goes at once, what waits for its node, its finalizers or its contents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.objects import FOREGROUND, ORPHAN, Objects
from podplane.errors import Conflict, Forbidden, Invalid, NotFound
from podplane.kinds import CONFIG_MAP, NAMESPACE, POD
from tests.controlplane.objects.world import NOW, World, config_map, namespace, pod


async def bound_pod(objects: Objects, *finalizers: str, grace: int | None = None) -> Any:
    made = pod()
    made.metadata.finalizers.extend(finalizers)
    if grace is not None:
        made.spec.terminationGracePeriodSeconds = grace
    await objects.create(made)
    return await objects.bind("default", "web", "node-1")


def gone(objects: Objects) -> bool:
    return objects.cache.get(POD, "default", "web") is None


async def test_a_pod_without_a_node_goes_at_once(objects: Objects) -> None:
    await objects.create(pod())
    last = await objects.delete(POD, "default", "web")
    assert last.metadata.resourceVersion == str(objects.cache.revision)
    assert gone(objects)


@pytest.mark.parametrize(("own", "asked", "expected"), [(None, None, 30), (5, None, 5), (5, 60, 60), (60, 1, 1)])
async def test_a_bound_pod_is_given_its_grace(
    objects: Objects, own: int | None, asked: int | None, expected: int
) -> None:
    await bound_pod(objects, grace=own)
    marked = await objects.delete(POD, "default", "web", grace=asked)
    assert marked.metadata.deletionGracePeriodSeconds == expected
    assert marked.metadata.deletionTimestamp.ToSeconds() == NOW + expected
    assert marked.metadata.generation == 2
    assert objects.get(POD, "default", "web") == marked


async def test_the_node_ends_the_deletion(objects: Objects) -> None:
    uid = (await bound_pod(objects)).metadata.uid
    await objects.delete(POD, "default", "web")
    await objects.remove(POD, "default", "web", "another")
    assert not gone(objects)
    await objects.remove(POD, "default", "web", uid)
    assert gone(objects)
    await objects.remove(POD, "default", "web", uid)


async def test_what_is_not_being_deleted_is_not_removed(objects: Objects) -> None:
    uid = (await bound_pod(objects)).metadata.uid
    with pytest.raises(Conflict, match="it is not being deleted"):
        await objects.remove(POD, "default", "web", uid)


async def test_grace_zero_removes_at_once(objects: Objects) -> None:
    await bound_pod(objects)
    await objects.delete(POD, "default", "web", grace=0)
    assert gone(objects)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended_goes_at_once(objects: Objects, phase: str) -> None:
    ended = await bound_pod(objects)
    ended.status.phase = phase
    await objects.update_status(ended)
    await objects.delete(POD, "default", "web")
    assert gone(objects)


async def test_a_second_delete_can_only_hasten(world: World) -> None:
    objects = world.objects
    await bound_pod(objects)
    await objects.delete(POD, "default", "web", grace=20)
    world.now += 5
    revision = objects.cache.revision
    assert (await objects.delete(POD, "default", "web", grace=60)).metadata.deletionGracePeriodSeconds == 20
    assert (await objects.delete(POD, "default", "web")).metadata.deletionGracePeriodSeconds == 20
    assert objects.cache.revision == revision
    hastened = await objects.delete(POD, "default", "web", grace=10)
    assert hastened.metadata.deletionGracePeriodSeconds == 10
    assert hastened.metadata.deletionTimestamp.ToSeconds() == NOW + 10
    await objects.delete(POD, "default", "web", grace=0)
    assert gone(objects)


async def test_finalizers_hold_an_object_until_they_are_empty(objects: Objects) -> None:
    held = config_map()
    held.metadata.finalizers.extend(["a", "b"])
    await objects.create(held)
    marked = await objects.delete(CONFIG_MAP, "default", "settings")
    assert marked.metadata.deletionTimestamp.ToSeconds() == NOW

    def drop(name: str) -> Any:
        def change(obj: Any) -> bool:
            obj.metadata.finalizers.remove(name)
            return True

        return objects.mutate(CONFIG_MAP, "default", "settings", change)

    await drop("a")
    assert objects.get(CONFIG_MAP, "default", "settings").metadata.finalizers == ["b"]
    await drop("b")
    assert objects.cache.get(CONFIG_MAP, "default", "settings") is None


async def test_finalizers_and_the_node_both_have_to_let_go(objects: Objects) -> None:
    def let_go(obj: Any) -> bool:
        del obj.metadata.finalizers[:]
        return True

    uid = (await bound_pod(objects, "a")).metadata.uid
    await objects.delete(POD, "default", "web")
    await objects.remove(POD, "default", "web", uid)
    assert objects.get(POD, "default", "web").metadata.deletionGracePeriodSeconds == 0
    await objects.mutate(POD, "default", "web", let_go)
    assert gone(objects)

    uid = (await bound_pod(objects, "a")).metadata.uid
    await objects.delete(POD, "default", "web")
    await objects.mutate(POD, "default", "web", let_go)
    assert not gone(objects), "its processes may still run"
    await objects.remove(POD, "default", "web", uid)
    assert gone(objects)


async def test_a_deleted_object_gets_no_new_finalizers(objects: Objects) -> None:
    await bound_pod(objects, "a")
    marked = await objects.delete(POD, "default", "web")
    marked.metadata.finalizers.append("b")
    with pytest.raises(Invalid, match="no new finalizers can be added if the object is being deleted"):
        await objects.update(marked)


async def test_an_update_does_not_take_back_a_deletion(objects: Objects) -> None:
    await bound_pod(objects)
    marked = await objects.delete(POD, "default", "web")
    plain = pod()
    plain.metadata.labels["a"] = "b"
    plain.spec.nodeName = "node-1"
    updated = await objects.update(plain)
    assert updated.metadata.deletionTimestamp == marked.metadata.deletionTimestamp
    assert updated.metadata.deletionGracePeriodSeconds == 30


@pytest.mark.parametrize(("propagation", "finalizer"), [("Foreground", FOREGROUND), ("Orphan", ORPHAN)])
async def test_propagation_asks_the_garbage_controller(objects: Objects, propagation: str, finalizer: str) -> None:
    await objects.create(config_map())
    marked = await objects.delete(CONFIG_MAP, "default", "settings", propagation=propagation)
    assert marked.metadata.finalizers == [finalizer]
    again = await objects.delete(CONFIG_MAP, "default", "settings")
    assert again.metadata.finalizers == [finalizer], "a second, plain delete does not take it back"


async def test_wrong_options_are_refused(objects: Objects) -> None:
    await objects.create(pod())
    with pytest.raises(Invalid, match=r"propagationPolicy: Unsupported value.*gracePeriodSeconds|gracePeriodSeconds"):
        await objects.delete(POD, "default", "web", grace=-1, propagation="Sideways")
    assert not gone(objects)


async def test_a_delete_of_an_older_version_is_a_conflict(objects: Objects) -> None:
    created = await objects.create(pod())
    await bound_version(objects)
    with pytest.raises(Conflict, match="the object has been modified"):
        await objects.delete(POD, "default", "web", revision=int(created.metadata.resourceVersion))


async def bound_version(objects: Objects) -> None:
    await objects.bind("default", "web", "node-1")


async def test_a_pod_being_deleted_is_not_bound(objects: Objects) -> None:
    held = pod()
    held.metadata.finalizers.append("a")
    await objects.create(held)
    await objects.delete(POD, "default", "web")
    with pytest.raises(Conflict, match="pod web is being deleted, cannot be assigned to a host"):
        await objects.bind("default", "web", "node-1")


async def test_a_namespace_goes_once_it_is_empty(objects: Objects) -> None:
    home = await objects.create(namespace("short"))
    inside = pod()
    inside.metadata.namespace = "short"
    await objects.create(inside)
    marked = await objects.delete(NAMESPACE, "", "short")
    assert marked.status.phase == "Terminating"
    assert await objects.delete(NAMESPACE, "", "short") == marked
    with pytest.raises(Conflict, match="it still contains pods"):
        await objects.remove(NAMESPACE, "", "short", home.metadata.uid)
    await objects.delete(POD, "short", "web")
    await objects.remove(NAMESPACE, "", "short", home.metadata.uid)
    with pytest.raises(NotFound):
        objects.get(NAMESPACE, "", "short")


async def test_a_namespace_waits_for_what_is_on_its_way_into_it(objects: Objects) -> None:
    home = await objects.create(namespace("short"))
    inside = pod()
    inside.metadata.namespace = "short"
    arriving, marked = await asyncio.gather(
        objects.create(inside), objects.delete(NAMESPACE, "", "short"), return_exceptions=False
    )
    assert arriving.metadata.namespace == "short"
    coming = asyncio.ensure_future(objects.delete(POD, "short", "web"))
    with pytest.raises(Conflict, match="still contains"):
        await objects.remove(NAMESPACE, "", "short", home.metadata.uid)
    await coming
    assert marked.metadata.uid == home.metadata.uid


@pytest.mark.parametrize("name", ["default", "kube-system"])
async def test_system_namespaces_stay(objects: Objects, name: str) -> None:
    with pytest.raises(Forbidden, match=f'namespaces "{name}" is forbidden: this namespace may not be deleted'):
        await objects.delete(NAMESPACE, "", name)


async def test_a_watch_sees_the_mark_and_the_end(objects: Objects) -> None:
    watch = objects.watch(POD)
    uid = (await bound_pod(objects)).metadata.uid
    await objects.delete(POD, "default", "web")
    await objects.remove(POD, "default", "web", uid)
    events: list[Any] = []
    async with asyncio.timeout(5):
        while len(events) < 4:
            events.extend(await anext(watch))
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    assert [event.stored.obj.metadata.HasField("deletionTimestamp") for event in events] == [False, False, True, True]

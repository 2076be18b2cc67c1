"""Writes through the facade: who owns which field, what a caller is told, and what makes a revision."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from controlplane.objects import Objects
from podplane.errors import (
    AlreadyExists,
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    PodplaneError,
    TooLarge,
)
from podplane.kinds import CONFIG_MAP, NAMESPACE, NODE, POD, SERVICE
from podplane.v1 import apps_pb2, node_pb2, service_pb2
from tests.controlplane.objects.world import NOW, World, config_map, namespace, pod


async def test_create_stamps_what_the_server_owns(objects: Objects) -> None:
    submitted = pod()
    submitted.metadata.uid = "mine"
    submitted.metadata.generation = 7
    submitted.metadata.deletionTimestamp.FromSeconds(1)
    submitted.status.phase = "Running"
    created = await objects.create(submitted)
    assert submitted.metadata.uid == "mine", "the caller's object is left alone"
    assert (created.apiVersion, created.kind) == ("v1", "Pod")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", created.metadata.uid)
    assert created.metadata.creationTimestamp.ToSeconds() == NOW
    assert created.metadata.creationTimestamp.nanos == 700_000_000, "moments are kept to the microsecond"
    assert created.metadata.generation == 1
    assert created.metadata.resourceVersion == str(objects.cache.revision)
    assert not created.metadata.HasField("deletionTimestamp")
    assert not created.HasField("status")
    assert objects.get(POD, "default", "web") == created


async def test_a_kind_without_spec_has_no_generation(objects: Objects) -> None:
    assert not (await objects.create(config_map(a="1"))).metadata.HasField("generation")


async def test_get_gives_a_copy_and_list_the_shared_objects(objects: Objects) -> None:
    await objects.create(pod("a"))
    await objects.create(pod("b"))
    objects.get(POD, "default", "a").spec.nodeName = "changed"
    assert [one.spec.nodeName for one in objects.list(POD)] == ["", ""]
    assert [one.metadata.name for one in objects.list(POD, "default", lambda one: one.metadata.name > "a")] == ["b"]
    assert objects.list(POD)[0] is objects.stored(POD, "default", "a").obj


async def test_what_is_there_or_not_is_told_as_kubernetes_does(objects: Objects) -> None:
    await objects.create(pod())
    with pytest.raises(AlreadyExists, match=r'^pods "web" already exists$'):
        await objects.create(pod())
    with pytest.raises(NotFound, match=r'^pods "none" not found$'):
        objects.get(POD, "default", "none")
    with pytest.raises(NotFound, match=r'^deployments.apps "d" not found$'):
        await objects.update(deployment("d"))


async def test_one_of_many_racing_creates_wins(objects: Objects) -> None:
    outcomes = await objects.transact(objects.create(pod()) for _ in range(20))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists"] * 19 + ["Pod"]


async def test_generate_name_makes_distinct_names(objects: Objects) -> None:
    submitted = pod("")
    submitted.metadata.ClearField("name")
    submitted.metadata.generateName = "job-"
    names = {(await objects.create(submitted)).metadata.name for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"job-[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in names)


async def test_an_object_needs_an_existing_namespace(objects: Objects) -> None:
    homeless = pod()
    homeless.metadata.namespace = "x"
    with pytest.raises(NotFound, match=r'namespaces "x" not found: create it first: podctl create namespace x'):
        await objects.create(homeless)
    with pytest.raises(NotFound, match='namespaces "x" not found'):
        await objects.apply(homeless)
    homeless.metadata.ClearField("namespace")
    assert (await objects.create(homeless)).metadata.namespace == "default"


@pytest.mark.parametrize(
    ("name", "home", "path"), [("", "default", "metadata.name"), ("a/b", "default", "metadata.name"), ("a", "b/c", "m")]
)
async def test_names_that_cannot_make_a_key_are_refused(objects: Objects, name: str, home: str, path: str) -> None:
    wrong = pod(name)
    wrong.metadata.namespace = home
    for write in (objects.create, objects.update, objects.apply, objects.update_status):
        with pytest.raises(Invalid) as invalid:
            await write(wrong)
        assert invalid.value.fields[0].path.startswith(path)


async def test_a_cluster_object_in_a_namespace_is_refused(objects: Objects) -> None:
    node = node_pb2.Node()
    node.metadata.name, node.metadata.namespace = "n", "default"
    with pytest.raises(Invalid, match="not allowed on this type"):
        await objects.create(node)


async def test_create_with_a_resource_version_is_refused(objects: Objects) -> None:
    submitted = pod()
    submitted.metadata.resourceVersion = "3"
    with pytest.raises(Invalid, match="resourceVersion should not be set on objects to be created"):
        await objects.create(submitted)


async def test_update_replaces_all_but_status_and_identity(objects: Objects) -> None:
    created = await objects.create(pod())
    await objects.mutate(POD, "default", "web", running, status=True)
    submitted = pod(image="other")
    submitted.metadata.labels["a"] = "b"
    submitted.metadata.generation = 99
    submitted.status.phase = "Failed"
    updated = await objects.update(submitted)
    assert updated.metadata.uid == created.metadata.uid
    assert updated.metadata.creationTimestamp == created.metadata.creationTimestamp
    assert updated.metadata.generation == 2
    assert updated.metadata.labels == {"a": "b"}
    assert updated.spec.containers[0].image == "other"
    assert updated.status.phase == "Running"


async def test_generation_counts_changes_of_the_spec_only(objects: Objects) -> None:
    created = await objects.create(pod())
    created.metadata.labels["a"] = "b"
    labelled = await objects.update(created)
    assert labelled.metadata.generation == 1
    labelled.spec.activeDeadlineSeconds = 5
    assert (await objects.update(labelled)).metadata.generation == 2


async def test_an_update_of_an_older_version_is_a_conflict(objects: Objects) -> None:
    first = await objects.create(pod())
    first.metadata.labels["a"] = "1"
    await objects.update(first)
    first.metadata.labels["a"] = "2"
    wording = (
        r'^Operation cannot be fulfilled on pods "web": the object has been modified; '
        r"please apply your changes to the latest version and try again$"
    )
    with pytest.raises(Conflict, match=wording):
        await objects.update(first)
    with pytest.raises(Conflict, match=wording):
        await objects.update_status(first)
    first.metadata.ClearField("resourceVersion")
    assert (await objects.update(first)).metadata.labels["a"] == "2"


async def test_another_uid_is_a_conflict(objects: Objects) -> None:
    await objects.create(pod())
    other = pod()
    other.metadata.uid = "other"
    with pytest.raises(Conflict, match="UID in precondition: other, UID in object meta: "):
        await objects.update(other)
    with pytest.raises(Conflict, match="UID"):
        await objects.bind("default", "web", "n1", uid="other")
    with pytest.raises(Conflict, match="has been modified"):
        await objects.bind("default", "web", "n1", revision=1)
    with pytest.raises(Conflict, match="UID"):
        await objects.delete(POD, "default", "web", uid="other")


async def test_a_resource_version_that_is_not_ours_is_invalid(objects: Objects) -> None:
    await objects.create(pod())
    wrong = pod()
    wrong.metadata.resourceVersion = "abc"
    with pytest.raises(Invalid, match="resourceVersion"):
        await objects.update(wrong)


async def test_a_write_that_changes_nothing_makes_no_revision(objects: Objects) -> None:
    created = await objects.create(pod())
    await objects.mutate(POD, "default", "web", running, status=True)
    before = objects.cache.revision
    created.metadata.ClearField("resourceVersion")
    current = objects.get(POD, "default", "web")
    assert await objects.update(created) == current
    assert await objects.update_status(current) == current
    assert await objects.mutate(POD, "default", "web", running, status=True) == current
    assert await objects.mutate(POD, "default", "web", lambda _: False) == current
    assert objects.cache.revision == before


async def test_update_status_touches_the_status_only(objects: Objects) -> None:
    created = await objects.create(pod())
    submitted = pod(image="other")
    submitted.metadata.labels["a"] = "b"
    submitted.status.phase = "Running"
    updated = await objects.update_status(submitted)
    assert updated.status.phase == "Running"
    assert updated.spec == created.spec
    assert updated.metadata.generation == 1
    assert not updated.metadata.labels


async def test_a_kind_without_status_has_none_to_update(objects: Objects) -> None:
    await objects.create(config_map())
    with pytest.raises(Invalid, match="configmaps have no status"):
        await objects.update_status(config_map())


async def test_a_status_is_judged_whoever_writes_it(world: World, objects: Objects) -> None:
    await objects.create(pod())
    world.gate.judge_status = lambda obj, old: [FieldError("status.phase", f"{old.status.phase}>{obj.status.phase}")]
    submitted = pod()
    submitted.status.phase = "Running"

    def run(live: Any) -> bool:
        live.status.phase = "Running"
        return True

    before = objects.cache.revision
    for write in (objects.update_status(submitted), objects.mutate(POD, "default", "web", run, status=True)):
        with pytest.raises(Invalid, match=r'^Pod "web" is invalid: status\.phase: >Running$'):
            await write
    assert objects.cache.revision == before


async def test_no_change_is_lost_among_racing_mutations(objects: Objects) -> None:
    await objects.create(config_map(count="0"))

    def increment(obj: Any) -> bool:
        obj.data["count"] = str(int(obj.data["count"]) + 1)
        return True

    await asyncio.gather(*(objects.mutate(CONFIG_MAP, "default", "settings", increment) for _ in range(200)))
    assert objects.get(CONFIG_MAP, "default", "settings").data["count"] == "200"


async def test_binding_completes_the_pod_once(objects: Objects) -> None:
    created = await objects.create(pod())
    bound = await objects.bind("default", "web", "node-1", uid=created.metadata.uid)
    assert bound.spec.nodeName == "node-1"
    assert bound.metadata.generation == 1
    (condition,) = bound.status.conditions
    assert (condition.type, condition.status) == ("PodScheduled", "True")
    assert condition.lastTransitionTime.ToSeconds() == NOW
    with pytest.raises(Conflict, match='pod web is already assigned to node "node-1"'):
        await objects.bind("default", "web", "node-2")


async def test_binding_replaces_what_the_scheduler_said_before(objects: Objects) -> None:
    waiting = pod()
    await objects.create(waiting)
    waiting.status.conditions.add(type="PodScheduled", status="False", reason="Unschedulable", message="0/0 nodes")
    await objects.update_status(waiting)
    (condition,) = (await objects.bind("default", "web", "node-1")).status.conditions
    assert (condition.status, condition.HasField("reason"), condition.HasField("message")) == ("True", False, False)


async def test_of_racing_binds_one_wins(objects: Objects) -> None:
    await objects.create(pod())
    outcomes = await objects.transact(objects.bind("default", "web", f"node-{number}") for number in range(10))
    won = [outcome for outcome in outcomes if not isinstance(outcome, PodplaneError)]
    assert [one.spec.nodeName for one in won] == [objects.get(POD, "default", "web").spec.nodeName]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9


async def test_a_status_in_between_does_not_spoil_a_bind(objects: Objects) -> None:
    await objects.create(pod())
    outcomes = await objects.transact(
        [objects.mutate(POD, "default", "web", running, status=True), objects.bind("default", "web", "node-1")]
    )
    assert outcomes[1].status.phase == "Running"
    assert outcomes[1].spec.nodeName == "node-1"


async def test_a_frame_of_writes_has_a_result_for_each(objects: Objects) -> None:
    results = await objects.transact([objects.create(pod(f"p{number % 3}")) for number in range(4)])
    assert [type(result).__name__ for result in results] == ["Pod", "Pod", "Pod", "AlreadyExists"]


async def test_every_fault_that_admission_finds_is_told(world: World) -> None:
    faults = [FieldError("spec.containers[0].image", "Required value"), FieldError("spec.hostPID", "Forbidden")]
    world.gate.judge = lambda obj, old, context: faults
    before = world.cache.revision
    with pytest.raises(Invalid, match=r'^Pod "web" is invalid: spec.containers\[0\].image: Required value; ') as error:
        await world.objects.create(pod())
    assert list(error.value.fields) == faults
    with pytest.raises(Invalid, match=r'^Deployment.apps "d" is invalid'):
        await world.objects.create(deployment("d"))
    assert world.cache.revision == before


async def test_admission_sees_the_write_and_the_store(world: World) -> None:
    seen = []

    def default(obj: Any, old: Any, context: Any) -> None:
        home = context.lookup(NAMESPACE, "", "default")
        seen.append((context.verb, old is not None, home.metadata.name, context.lookup(NODE, "", "none")))
        if context.verb == "create":
            obj.status.phase = "Pending"

    world.gate.default = default
    created = await world.objects.create(pod())
    assert created.status.phase == "Pending", "the client's status is dropped, a default is not"
    await world.objects.update(created)
    assert seen == [("create", False, "default", None), ("update", True, "default", None)]


async def test_services_are_allocated_one_after_the_other(world: World) -> None:
    def allocate(obj: Any, old: Any, context: Any) -> None:
        if old is None and obj.kind == SERVICE.name:
            taken = context.taken(obj.metadata.namespace, obj.metadata.name).addresses
            obj.spec.clusterIP = next(one for number in range(20) if (one := f"10.0.0.{number}") not in taken)

    world.gate.default = allocate
    services = [service_pb2.Service() for _ in range(20)]
    for number, service in enumerate(services):
        service.metadata.name = f"s{number}"
    created = await world.objects.transact(
        [world.objects.create(one) if number % 2 else world.objects.apply(one) for number, one in enumerate(services)]
    )
    assert sorted(one.spec.clusterIP for one in created) == sorted(f"10.0.0.{number}" for number in range(20))


async def test_an_object_over_the_bound_is_refused(objects: Objects) -> None:
    with pytest.raises(TooLarge, match=r'configmaps "settings" is too large: 1\d+ bytes, at most 1572864'):
        await objects.create(config_map(big="x" * 1_572_864))
    await objects.create(config_map(big="x" * 1_500_000))


async def test_nothing_is_created_in_a_namespace_that_ends(objects: Objects) -> None:
    await objects.create(namespace("short"))
    await objects.delete(NAMESPACE, "", "short")
    late = pod()
    late.metadata.namespace = "short"
    with pytest.raises(Forbidden, match="unable to create new content in namespace short because it is being"):
        await objects.create(late)


async def test_what_is_written_survives_a_watch_from_before(objects: Objects) -> None:
    watch = objects.watch(POD, after=objects.cache.revision)
    created = await objects.create(pod())
    bound = await objects.bind("default", "web", "node-1")
    async with asyncio.timeout(5):
        events = [*await anext(watch)]
        while len(events) < 2:
            events.extend(await anext(watch))
    assert [event.stored.obj for event in events] == [created, bound]


def running(obj: Any) -> bool:
    obj.status.phase = "Running"
    return True


def deployment(name: str) -> apps_pb2.Deployment:
    made = apps_pb2.Deployment()
    made.metadata.name, made.metadata.namespace = name, "default"
    return made

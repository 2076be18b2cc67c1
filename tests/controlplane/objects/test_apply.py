"""Apply: create or merge, remember what was applied, touch nothing that others set."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from controlplane.objects import LAST_APPLIED, Objects
from podplane.errors import Conflict, Invalid, NotFound
from podplane.kinds import CONFIG_MAP, POD
from tests.controlplane.objects.world import World, config_map, pod


async def test_the_first_apply_creates_and_keeps_the_manifest_where_kubectl_does(objects: Objects) -> None:
    submitted = config_map(a="1")
    submitted.metadata.uid = "mine"
    submitted.metadata.creationTimestamp.FromSeconds(1)
    submitted.metadata.annotations["note"] = "x"
    applied = await objects.apply(submitted)
    assert len(applied.metadata.uid) == 36
    assert json.loads(applied.metadata.annotations[LAST_APPLIED]) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "default", "annotations": {"note": "x"}},
        "data": {"a": "1"},
    }


async def test_what_was_applied_and_is_left_out_goes_and_the_rest_stays(objects: Objects) -> None:
    await objects.apply(config_map(mine="1", dropped="1"))

    def by_others(obj: Any) -> bool:
        obj.data["theirs"] = "1"
        obj.metadata.labels["theirs"] = "1"
        return True

    await objects.mutate(CONFIG_MAP, "default", "settings", by_others)
    applied = await objects.apply(config_map(mine="2", new="1"))
    assert applied.data == {"mine": "2", "new": "1", "theirs": "1"}
    assert applied.metadata.labels == {"theirs": "1"}


async def test_applying_the_same_again_makes_no_revision(world: World) -> None:
    def default(obj: Any, old: Any, context: Any) -> None:
        if hasattr(obj, "spec") and not obj.spec.restartPolicy:
            obj.spec.restartPolicy = "Always"

    world.gate.default = default
    objects = world.objects
    await objects.apply(pod())
    bound = await objects.bind("default", "web", "node-1")
    assert await objects.apply(pod()) == bound
    assert objects.cache.revision == int(bound.metadata.resourceVersion)
    assert (bound.spec.nodeName, bound.spec.restartPolicy) == ("node-1", "Always")


async def test_apply_takes_over_what_was_created_otherwise(objects: Objects) -> None:
    await objects.create(config_map(a="1", b="1"))
    applied = await objects.apply(config_map(a="2"))
    assert applied.data == {"a": "2", "b": "1"}
    assert LAST_APPLIED in applied.metadata.annotations


async def test_a_status_in_a_manifest_is_ignored(objects: Objects) -> None:
    submitted = pod()
    submitted.status.phase = "Running"
    created = await objects.apply(submitted)
    assert not created.HasField("status")
    assert not (await objects.apply(submitted)).HasField("status")


async def test_preconditions_hold(objects: Objects) -> None:
    first = await objects.apply(config_map(a="1"))
    await objects.apply(config_map(a="2"))
    old = config_map(a="3")
    old.metadata.resourceVersion = first.metadata.resourceVersion
    with pytest.raises(Conflict, match="the object has been modified"):
        await objects.apply(old)
    absent = pod()
    absent.metadata.resourceVersion = "1"
    with pytest.raises(Invalid, match="resourceVersion should not be set on objects to be created"):
        await objects.apply(absent)


async def test_racing_applies_all_get_through(objects: Objects) -> None:
    await asyncio.gather(*(objects.apply(config_map(a=str(number))) for number in range(20)))
    live = objects.get(CONFIG_MAP, "default", "settings")
    assert json.loads(live.metadata.annotations[LAST_APPLIED])["data"] == dict(live.data)


async def test_racing_appliers_and_deleters_agree(objects: Objects) -> None:
    async def delete() -> None:
        try:
            await objects.delete(POD, "default", "web")
        except NotFound:
            return

    applies = [objects.apply(pod(image=f"i{number}")) for number in range(20)]
    await asyncio.gather(*applies, *(delete() for _ in range(20)))
    assert (await objects.apply(pod(image="last"))).spec.containers[0].image == "last"


async def test_generate_name_cannot_be_applied(objects: Objects) -> None:
    nameless = pod()
    nameless.metadata.ClearField("name")
    nameless.metadata.generateName = "x-"
    with pytest.raises(Invalid, match="cannot use generate name with apply"):
        await objects.apply(nameless)


async def test_a_last_applied_that_cannot_be_read_is_named(objects: Objects) -> None:
    broken = config_map(a="1")
    broken.metadata.annotations[LAST_APPLIED] = "{not json"
    await objects.create(broken)
    with pytest.raises(Invalid, match=r"metadata.annotations\[kubectl.*remove the annotation"):
        await objects.apply(config_map(a="2"))

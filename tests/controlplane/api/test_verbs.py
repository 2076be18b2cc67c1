"""The verbs over the wire: writes, pages, watches and their selectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podplane.errors import Unavailable
from podplane.kinds import KINDS
from podplane.v1 import batch_pb2, config_pb2, requests_pb2, service_pb2
from tests.controlplane.plane import METHODS, Client, Plane, running, status


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> config_pb2.ConfigMap:
    return config_pb2.ConfigMap(metadata={"name": name, "labels": labels or {}}, data=data)  # type: ignore[arg-type]


def watching(client: Client, **request: Any) -> Any:
    return client.call("ConfigMaps/Watch", requests_pb2.WatchRequest(**request))


async def seen(stream: Any) -> AsyncIterator[tuple[str, str]]:
    async for frame in stream:
        for event in frame.events:
            yield event.type, event.object.metadata.name


async def take(events: AsyncIterator[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(5):
        return [await anext(events) for _ in range(count)]


async def names(client: Client, **request: Any) -> list[str]:
    listed = await client.call("ConfigMaps/List", requests_pb2.ListRequest(**request))
    return [one.metadata.name for one in listed.items]


async def test_an_object_is_created_read_updated_and_deleted(plane: Plane) -> None:
    admin = plane.person()
    made = await admin.call("ConfigMaps/Create", config_map("a", key="1"))
    assert (made.metadata.namespace, made.kind, made.apiVersion) == ("default", "ConfigMap", "v1")
    assert (await status(admin.call("ConfigMaps/Create", config_map("a"))))[0] == "ALREADY_EXISTS"
    read = await admin.call("ConfigMaps/Get", requests_pb2.GetRequest(name="a"))
    assert read == made
    read.data["key"] = "2"
    changed = await admin.call("ConfigMaps/Update", read)
    assert int(changed.metadata.resourceVersion) > int(made.metadata.resourceVersion)
    assert (await status(admin.call("ConfigMaps/Update", read)))[0] == "ABORTED"
    await admin.call("ConfigMaps/Delete", requests_pb2.DeleteRequest(name="a"))
    assert await status(admin.call("ConfigMaps/Get", requests_pb2.GetRequest(name="a"))) == (
        "NOT_FOUND",
        'configmaps "a" not found',
    )


async def test_a_wrong_kind_or_a_missing_name_is_invalid(plane: Plane) -> None:
    admin = plane.person()
    wrong = config_map("a")
    wrong.kind = "Pod"
    assert (await status(admin.call("ConfigMaps/Create", wrong)))[0] == "INVALID_ARGUMENT"
    assert (await status(admin.call("ConfigMaps/Get", requests_pb2.GetRequest())))[0] == "INVALID_ARGUMENT"
    bad = requests_pb2.DeleteRequest(name="a", propagationPolicy="Sideways")
    assert "Background, Foreground, Orphan" in (await status(admin.call("ConfigMaps/Delete", bad)))[1]


async def test_a_status_is_judged_and_nothing_of_a_wrong_one_is_stored(plane: Plane) -> None:
    admin = plane.person()
    service = service_pb2.Service(metadata={"name": "web", "namespace": "default"})  # type: ignore[arg-type]
    service.spec.type = "LoadBalancer"
    service.spec.ports.add(port=80)
    made = await admin.call("Services/Create", service)
    made.status.loadBalancer.ingress.add(ip="198.51.100.7")
    made.status.loadBalancer.ingress.add(ip="nowhere")
    code, words = await status(admin.call("Services/UpdateStatus", made))
    where = 'status.loadBalancer.ingress[1].ip: Invalid value: "nowhere"'
    assert (code, words.startswith(f'Service "web" is invalid: {where}')) == ("INVALID_ARGUMENT", True), words
    read = await admin.call("Services/Get", requests_pb2.GetRequest(name="web"))
    assert not read.status.loadBalancer.ingress
    del made.status.loadBalancer.ingress[1]
    assert len((await admin.call("Services/UpdateStatus", made)).status.loadBalancer.ingress) == 1


async def test_pages_are_of_one_revision_whatever_happens_between_them(plane: Plane) -> None:
    admin = plane.person()
    for name in "abcde":
        await admin.call("ConfigMaps/Create", config_map(name))
    first = await admin.call("ConfigMaps/List", requests_pb2.ListRequest(namespace="default", limit=2))
    assert ([one.metadata.name for one in first.items], first.metadata.remainingItemCount) == (["a", "b"], 3)
    await admin.call("ConfigMaps/Delete", requests_pb2.DeleteRequest(name="d"))
    await admin.call("ConfigMaps/Create", config_map("c2"))
    rest, page = [], first
    while token := getattr(page.metadata, "continue"):
        request = requests_pb2.ListRequest(namespace="default", limit=2, **{"continue": token})
        page = await admin.call("ConfigMaps/List", request)
        rest += [one.metadata.name for one in page.items]
        assert page.metadata.resourceVersion == first.metadata.resourceVersion
    assert rest == ["c", "d", "e"]


async def test_a_continue_token_is_for_its_own_list_and_user_only(plane: Plane) -> None:
    admin, other = plane.person(), plane.person("admin", "eve")
    for name in "ab":
        await admin.call("ConfigMaps/Create", config_map(name))
    first = await admin.call("ConfigMaps/List", requests_pb2.ListRequest(limit=1))
    token = {"continue": getattr(first.metadata, "continue")}
    for client, request in ((other, {}), (admin, {"namespace": "default"})):
        again = requests_pb2.ListRequest(limit=1, **request, **token)
        assert (await status(client.call("ConfigMaps/List", again)))[0] == "INVALID_ARGUMENT"
    gone = requests_pb2.ListRequest(**{"continue": "0123.1"})  # type: ignore[arg-type]
    assert (await status(admin.call("ConfigMaps/List", gone)))[0] == "OUT_OF_RANGE"


async def test_a_large_list_comes_in_pages_below_the_message_limit(plane: Plane) -> None:
    admin = plane.person()
    for index in range(5):
        await admin.call("ConfigMaps/Create", config_map(f"big-{index}", text="x" * 1_000_000))
    first = await admin.call("ConfigMaps/List", requests_pb2.ListRequest())
    assert (len(first.items), first.metadata.remainingItemCount) == (3, 2)
    frames = [frame async for frame in _until_bookmark(watching(admin))]
    assert [len(frame.events) for frame in frames] == [3, 2, 1]


async def _until_bookmark(stream: Any) -> AsyncIterator[Any]:
    async for frame in stream:
        yield frame
        if frame.events[-1].type == "BOOKMARK":
            return


async def test_lists_follow_label_and_field_selectors(plane: Plane) -> None:
    admin = plane.person()
    for name, tier in (("a", "web"), ("b", "db"), ("c", "web")):
        await admin.call("ConfigMaps/Create", config_map(name, {"tier": tier}))
    assert await names(admin, labelSelector="tier in (web)") == ["a", "c"]
    assert await names(admin, labelSelector="tier=web", fieldSelector="metadata.name!=a") == ["c"]
    bad = requests_pb2.ListRequest(fieldSelector="spec.colour=red")
    assert (await status(admin.call("ConfigMaps/List", bad)))[0] == "INVALID_ARGUMENT"


async def test_a_watch_tells_what_is_there_then_a_bookmark_then_changes(plane: Plane) -> None:
    admin = plane.person()
    await admin.call("ConfigMaps/Create", config_map("a"))
    events = seen(watching(admin, namespace="default"))
    assert await take(events, 2) == [("ADDED", "a"), ("BOOKMARK", "")]
    await admin.call("ConfigMaps/Apply", config_map("a", key="1"))
    await admin.call("ConfigMaps/Delete", requests_pb2.DeleteRequest(name="a"))
    assert await take(events, 2) == [("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_resumes_after_a_revision_and_refuses_one_of_another_store(plane: Plane) -> None:
    admin = plane.person()
    made = await admin.call("ConfigMaps/Create", config_map("a"))
    await admin.call("ConfigMaps/Create", config_map("b"))
    events = seen(watching(admin, resourceVersion=made.metadata.resourceVersion))
    assert await take(events, 1) == [("ADDED", "b")]
    assert (await status(watching(admin, resourceVersion="99999999")))[0] == "OUT_OF_RANGE"
    assert (await status(watching(admin, resourceVersion="new")))[0] == "INVALID_ARGUMENT"


async def test_a_selective_watch_sees_objects_enter_and_leave_its_selection(plane: Plane) -> None:
    admin = plane.person()
    events = seen(watching(admin, labelSelector="on=yes"))
    assert await take(events, 1) == [("BOOKMARK", "")]
    await admin.call("ConfigMaps/Create", config_map("a"))
    for label in ("yes", "no", "yes"):
        made = await admin.call("ConfigMaps/Get", requests_pb2.GetRequest(name="a"))
        made.metadata.labels["on"] = label
        await admin.call("ConfigMaps/Update", made)
    await admin.call("ConfigMaps/Delete", requests_pb2.DeleteRequest(name="a"))
    assert await take(events, 4) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("DELETED", "a")]


async def test_a_batch_answers_each_write_with_its_own_result(plane: Plane) -> None:
    editor = plane.person("edit", "eve")
    frame = batch_pb2.BatchRequest()
    for name in ("a", "a", "b"):
        frame.writes.add(verb="create").object.Pack(config_map(name))
    frame.writes.add(verb="delete", kind="ConfigMap", delete=requests_pb2.DeleteRequest(name="missing"))
    frame.writes.add(verb="delete", kind="Node", delete=requests_pb2.DeleteRequest(name="n"))
    frame.writes.add(verb="paint")
    call = editor.call("Batch/Write", iter([frame]))
    answer = await call.read()
    assert sorted(result.code for result in answer.results[:2]) == [0, 6]
    assert [result.code for result in answer.results[2:]] == [0, 5, 7, 3]
    assert answer.results[4].message.startswith('nodes "n" is forbidden: User "eve" cannot delete')
    assert sorted(await names(editor)) == ["a", "b"]


async def test_a_batch_over_its_bound_is_refused_whole(plane: Plane) -> None:
    frame = batch_pb2.BatchRequest(writes=[batch_pb2.BatchWrite(verb="create")] * 101)
    assert (await status(plane.person().call("Batch/Write", iter([frame]))))[0] == "INVALID_ARGUMENT"


async def test_streams_end_when_their_token_expires_or_is_revoked(plane: Plane) -> None:
    expiring = watching(plane.person("view", ttl=0.5))
    token = plane.tokens.create("bob", "view", None)
    revoked = watching(plane.anonymous(token))
    for stream in (expiring, revoked):
        assert (await anext(aiter(stream))).events[0].type == "BOOKMARK"
    (plane.state / "tokens" / f"{token.partition('.')[0]}.json").unlink()
    for stream in (expiring, revoked):
        async with asyncio.timeout(6):
            assert (await status(stream))[0] == "UNAUTHENTICATED"


async def test_watches_end_with_unavailable_and_objects_outlive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as plane:
        token = plane.tokens.create("bob", "admin", None)
        admin = plane.anonymous(token)
        made = await admin.call("ConfigMaps/Create", config_map("a", key="1"))
        stream = watching(admin)
        await anext(aiter(stream))
        ending = asyncio.create_task(status(stream))
        await plane.control.gate.end_streams(Unavailable("stopping"))
        assert (await ending)[0] == "UNAVAILABLE"
    async with running(tmp_path / "state") as plane:
        again = plane.anonymous(token)
        assert await again.call("ConfigMaps/Get", requests_pb2.GetRequest(name="a")) == made
        events = seen(watching(again, resourceVersion=str(int(made.metadata.resourceVersion) - 1)))
        assert await take(events, 1) == [("ADDED", "a")]


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
async def test_every_kind_is_listed_and_watched(plane: Plane, kind: Any) -> None:
    admin = plane.person()
    service = next(path.split("/")[1].split(".")[-1] for path in METHODS if f".{kind.plural}/" in path.lower())
    listed = await admin.call(f"{service}/List", requests_pb2.ListRequest())
    assert (listed.apiVersion, listed.kind) == (kind.api_version, f"{kind.name}List")
    frame = [frame async for frame in _until_bookmark(admin.call(f"{service}/Watch", requests_pb2.WatchRequest()))][-1]
    assert int(frame.events[-1].object.metadata.resourceVersion) > 0


async def test_numbers_without_end_are_invalid_and_no_internal_error(plane: Plane) -> None:
    admin, endless = plane.person(), "9" * 5000
    made = await admin.call("ConfigMaps/Create", config_map("a"))
    made.metadata.resourceVersion = endless
    assert (await status(admin.call("ConfigMaps/Update", made)))[0] == "INVALID_ARGUMENT"
    page = requests_pb2.ListRequest(**{"continue": f"0123.{endless}"})  # type: ignore[arg-type]
    assert (await status(admin.call("ConfigMaps/List", page)))[0] == "INVALID_ARGUMENT"
    secret = config_pb2.Secret(metadata={"name": "s"}, type="kubernetes.io/dockerconfigjson")  # type: ignore[arg-type]
    secret.data[".dockerconfigjson"] = b"[" * 100_000
    assert (await status(admin.call("Secrets/Create", secret)))[0] == "INVALID_ARGUMENT"

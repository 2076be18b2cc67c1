"""Pulling from a real registry, unpacking, and every way in which that fails."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.runtime import images
from nodeagent.runtime.image import ImageFailure, stop_signal
from nodeagent.runtime.images import ImageStore, Limits
from tests.support.archives import directory, file, link

from .conftest import Node, ended, ran
from .registry import Registry, free_port, serving

BUSYBOX = Path("/usr/bin/busybox").read_bytes()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
async def store(node: Node, registry: Registry) -> AsyncIterator[ImageStore]:
    node.images = ImageStore(node.state, node.run, registries_conf=registry.conf, limits=Limits(ask=5))
    yield node.images
    await node.images.close()


async def refused(store: ImageStore, image: str, policy: str = "IfNotPresent") -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        await store.ensure(image, policy)
    return caught.value


async def test_an_image_runs_with_its_layers_merged(node: Node, store: ImageStore, registry: Registry) -> None:
    lower = [directory("bin"), file("bin/busybox", BUSYBOX, 0o755), link("bin/sh", "busybox"), directory("etc"),
             file("etc/passwd", b"app:x:1234:1235::/srv:/bin/sh\n"), file("etc/group", b"app:x:1235:\nmore:x:77:app\n"),
             directory("gone"), file("gone/old", b"x"), file("replaced", b"old"), file("removed", b"x")]  # fmt: skip
    upper = [file("replaced", b"new"), file(".wh.removed"), directory("gone"), file("gone/.wh..wh..opq"),
             file("gone/fresh", b"y"), directory("srv")]  # fmt: skip
    config = {"Entrypoint": ["/bin/busybox", "sh", "-c"], "Cmd": ["exit 1"], "Env": ["A=image", "B=image"],
              "User": "app", "WorkingDir": "/srv"}  # fmt: skip
    image = await store.ensure(registry.push("tiny:1", [lower, upper], config), "IfNotPresent")
    runtime = await node.open()
    script = "cat ../replaced; echo; cd /; cat replaced; echo; ls; ls gone; id -u; id -g; id -G; echo $A $B $HOME"
    request = node.request(args=(script,), image=image.id, env=(("B", "pod"),))
    assert (await ran(runtime, request)).code == 0
    said = node.log(request).split()
    assert said[:2] == ["new", "new"]
    assert "removed" not in said
    assert "old" not in said
    assert {"fresh", "1234", "1235", "77"} <= set(said)
    assert said[-3:] == ["image", "pod", "/srv"]


async def test_an_images_stop_signal_ends_its_container(node: Node, store: ImageStore, registry: Registry) -> None:
    layer = [directory("bin"), file("bin/busybox", BUSYBOX, 0o755)]
    image = await store.ensure(registry.push("quits:1", [layer], {"StopSignal": "SIGQUIT"}), "IfNotPresent")
    runtime = await node.open()
    script = "trap 'exit 7' QUIT; trap 'exit 8' TERM; echo ready; while :; do busybox sleep 0.05; done"
    request = node.request("/bin/busybox", "sh", "-c", script, image=image.id)
    await runtime.create(request)
    await runtime.start(request.id)
    async with asyncio.timeout(20):
        while not list(node.state.glob("logs/*/app/0.log")) or "ready" not in node.log(request):
            await asyncio.sleep(0.02)
    await runtime.stop(request.id)
    assert (await ended(runtime, request)).code == 7


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 15),
        ("SIGQUIT", 3),
        ("quit", 3),
        ("3", 3),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("SIGNONSENSE", 15),
        ("0", 15),
    ],
)
def test_stop_signals_by_name_and_number(text: str, number: int) -> None:
    assert stop_signal(text) == number


async def test_one_pull_is_shared_and_a_present_image_needs_no_registry(store: ImageStore, registry: Registry) -> None:
    name = registry.push("shared:1", [[file("a", b"1")]])
    first, second = await asyncio.gather(store.ensure(name, "Always"), store.ensure(name, "IfNotPresent"))
    assert first == second
    registry.stop()
    assert (await store.ensure(name, "IfNotPresent")).id == first.id
    assert (await store.ensure(name, "Never")).id == first.id
    assert (await refused(store, name, "Always")).reason == "RegistryUnavailable"


async def test_always_sees_a_moved_tag_and_layers_are_shared(store: ImageStore, registry: Registry) -> None:
    base = [file("base", b"same")]
    old = await store.ensure(registry.push("moved:latest", [base]), "Always")
    registry.push("moved:latest", [base, [file("more")]])
    kept = await store.ensure(f"{registry.address}/moved", "IfNotPresent")
    new = await store.ensure(f"{registry.address}/moved", "Always")
    assert (kept.id, kept.layers[0]) == (old.id, new.layers[0])
    assert new.id != old.id
    assert len(list(store.layers.iterdir())) == 2
    assert await store.ensure(new.repo_digest, "IfNotPresent") == replace(new, ref=new.repo_digest)


async def test_what_the_registry_refuses_is_err_image_pull_in_its_words(store: ImageStore, registry: Registry) -> None:
    failure = await refused(store, f"{registry.address}/absent:1")
    assert failure.reason == "ErrImagePull"
    assert "unknown" in failure.message


async def test_an_unreachable_registry_is_registry_unavailable(store: ImageStore) -> None:
    assert (await refused(store, f"127.0.0.1:{free_port()}/x")).reason == "RegistryUnavailable"
    assert (await refused(store, "no-such-host.invalid/x")).reason == "RegistryUnavailable"


async def test_http_without_permission_is_registry_unavailable(node: Node, registry: Registry) -> None:
    name = registry.push("plain:1", [[file("a")]])
    conf = registry.base / "strict.conf"
    conf.write_text("")
    strict = ImageStore(node.state, node.run, registries_conf=conf)
    assert (await refused(strict, name)).reason == "RegistryUnavailable"


async def test_a_registry_that_never_answers_is_given_up(node: Node, registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = ImageStore(node.state, node.run, registries_conf=registry.conf, limits=Limits(ask=0.5))
        failure = await refused(store, f"127.0.0.1:{server.getsockname()[1]}/x")
    assert failure.reason == "RegistryUnavailable"
    assert "did not answer within 0.5 s" in failure.message


async def test_names_and_policies_are_judged_before_any_registry(store: ImageStore) -> None:
    assert (await refused(store, "Not/A Name")).reason == "InvalidImageName"
    failure = await refused(store, "docker.io/library/absent:1", "Never")
    assert failure.reason == "ErrImageNeverPull"
    assert failure.message == 'Container image "docker.io/library/absent:1" is not present with pull policy of Never'


async def test_a_damaged_image_is_image_inspect_error_until_pulled_again(store: ImageStore, registry: Registry) -> None:
    name = registry.push("damaged:1", [[file("a", b"1")]])
    image = await store.ensure(name, "IfNotPresent")
    (store.layers.parent / "configs" / image.id.partition(":")[2]).write_text("{}")
    assert (await refused(store, name)).reason == "ImageInspectError"
    assert await store.ensure(name, "Always") == image


@pytest.mark.parametrize("damage", ["gone", "a file"])
async def test_a_layer_that_cannot_be_read_is_image_inspect_error(
    store: ImageStore, registry: Registry, damage: str
) -> None:
    name = registry.push("damaged:2", [[file("a", b"1")]])
    image = await store.ensure(name, "IfNotPresent")
    (layer,) = store.layers.iterdir()
    shutil.rmtree(layer)
    if damage == "a file":
        layer.write_bytes(b"")
    assert (await refused(store, name)).reason == "ImageInspectError"
    assert (await refused(store, name, "Never")).reason == "ImageInspectError"
    assert await store.ensure(name, "Always") == image
    assert (layer / "a").read_bytes() == b"1"


async def test_a_wrong_layer_is_refused_and_nothing_partial_stays(store: ImageStore, registry: Registry) -> None:
    name = registry.push("wrong:1", [[file("a", b"x" * 5000)]])
    blob = max(registry.storage.rglob("data"), key=lambda path: path.read_bytes()[:2] == b"\x1f\x8b")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert (await refused(store, name)).reason == "ErrImagePull"
    assert list(store.layers.iterdir()) == []
    assert list((store.layers.parent / "tmp").iterdir()) == []
    assert (await refused(store, name, "Never")).reason == "ErrImageNeverPull"


async def test_layers_that_would_leave_are_refused(store: ImageStore, registry: Registry) -> None:
    name = registry.push("hostile:1", [[link("out", "/etc"), file("out/evil", b"x")]])
    failure = await refused(store, name)
    assert failure.reason == "ErrImagePull"
    assert "leads through the symlink 'out'" in failure.message
    assert not Path("/etc/evil").exists()


async def test_partial_pulls_are_swept_at_the_next_start(node: Node) -> None:
    (node.state / "images" / "tmp" / "pull-x").mkdir()
    ImageStore(node.state, node.run)
    assert list((node.state / "images" / "tmp").iterdir()) == []


async def test_credentials_leave_no_file(node: Node, store: ImageStore, registry: Registry) -> None:
    name = registry.push("auth:1", [[file("a")]])
    await store.ensure(name, "IfNotPresent", logins=[("127.0.0.1", {"auth": "eDp5"})])
    assert list((node.run / "auth").iterdir()) == []


async def test_a_removed_image_keeps_what_others_share(
    store: ImageStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = [file("base", b"same")]
    one = await store.ensure(registry.push("one:1", [base]), "Always")
    two = await store.ensure(registry.push("two:1", [base, [file("own")]]), "Always")
    assert await store.remove(two.id) is None  # it was handed out just now
    monkeypatch.setattr(images, "LEASE", -1.0)
    for image in (one, two):
        await store.get(image.id)
    assert await store.remove(two.id)
    assert [held.image.id for held in await store.held()] == [one.id]
    assert (await store.get(one.id)).layers == one.layers
    assert len(list(store.layers.iterdir())) == 1

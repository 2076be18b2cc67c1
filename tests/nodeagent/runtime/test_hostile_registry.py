"""Registries that misbehave: the right status, in their words, and nothing partial on the disk."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nodeagent.runtime.image import ImageFailure
from nodeagent.runtime.images import ImageStore, Limits
from tests.support.archives import INDEX, Packed, device, digest, file, link, pack, tar
from tests.support.hostile import (
    Fault,
    Hostile,
    cut,
    endless,
    hang,
    hang_up,
    loop,
    other,
    say,
    short,
    trickle,
)

from .conftest import Node

NOISE = random.Random(1).randbytes(300_000)
Serve = Callable[..., tuple[ImageStore, Hostile]]


@pytest.fixture
async def serve(node: Node, tmp_path: Path) -> AsyncIterator[Serve]:
    stores: list[ImageStore] = []
    registries: list[Hostile] = []

    def make(image: Packed | None = None, **limits: float) -> tuple[ImageStore, Hostile]:
        registry = Hostile(image or pack([[file("noise", NOISE)]]))
        registries.append(registry)
        conf = tmp_path / "registries.conf"
        conf.write_text(registry.conf())
        store = ImageStore(node.state, node.run, registries_conf=conf, limits=Limits(**limits))  # type: ignore[arg-type]
        stores.append(store)
        return store, registry

    yield make
    for store in stores:
        await store.close()
        assert list((store.layers.parent / "tmp").iterdir()) == []
    assert list((node.run / "auth").iterdir()) == []
    for registry in registries:
        registry.close()


async def refused(store: ImageStore, registry: Hostile, name: str = "x/y:1") -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        await store.ensure(f"{registry.address}/{name}", "Always")
    assert list(store.layers.iterdir()) == []
    assert await store.held() == []
    return caught.value


@pytest.mark.parametrize(
    ("part", "fault", "reason", "words"),
    [
        ("manifest", say(401, "UNAUTHORIZED", "who are you"), "ErrImagePull", "unauthorized: who are you"),
        ("manifest", say(403, "DENIED", "no entry for you"), "ErrImagePull", "denied: no entry for you"),
        ("manifest", say(404, "MANIFEST_UNKNOWN", "never seen"), "ErrImagePull", "manifest unknown: never seen"),
        ("manifest", say(429, "TOOMANYREQUESTS", "slow down"), "ErrImagePull", "toomanyrequests: slow down (429"),
        ("layer", say(429, "TOOMANYREQUESTS", "slow down"), "ErrImagePull", "toomanyrequests: slow down (429"),
        ("layer", say(429, "X", "", **{"Retry-After": "600"}), "ErrImagePull", "x: (429 Too Many Requests)"),
        ("layer", say(404, "BLOB_UNKNOWN", "lost it"), "ErrImagePull", "404 (Not Found)"),
        ("ping", say(503, "UNAVAILABLE", "later"), "RegistryUnavailable", "503 (Service Unavailable)"),
        ("manifest", say(500, "UNKNOWN", "oh dear"), "RegistryUnavailable", "500 Internal Server Error"),
        ("layer", say(502, "UNKNOWN", "oh dear"), "RegistryUnavailable", "502 (Bad Gateway)"),
        ("ping", hang_up, "RegistryUnavailable", "EOF"),
        ("manifest", loop, "ErrImagePull", "stopped after 10 redirects"),
        ("layer", loop, "ErrImagePull", "stopped after 10 redirects"),
        ("layer", cut, "ErrImagePull", "unexpected EOF"),
        ("layer", short, "ErrImagePull", "Digest did not match"),
        ("layer", other(b"something else"), "ErrImagePull", "Digest did not match"),
        ("config", other(b"{}"), "ErrImagePull", "does not match expected"),
        ("manifest", other(b"<html>"), "ErrImagePull", "not JSON"),
        ("manifest", other(b"[]"), "ErrImagePull", "not a JSON object"),
        ("manifest", other(b'{"schemaVersion": 1}'), "ErrImagePull", "schema version 1"),
    ],
)
async def test_each_fault_has_its_status(serve: Serve, part: str, fault: Fault, reason: str, words: str) -> None:
    store, registry = serve()
    registry.faults[part] = fault
    failure = await refused(store, registry)
    assert failure.reason == reason
    assert words in failure.message
    # Mended, it is pulled: no failure leaves anything that stands in the way.
    del registry.faults[part]
    image = await store.ensure(f"{registry.address}/x/y:1", "Always")
    assert image.repo_digest == f"{registry.address}/x/y@{digest(registry.image.manifest)}"


@pytest.mark.parametrize(("part", "words"), [("ping", "did not answer within 0.5 s"), ("layer", "stopped sending")])
async def test_silence_is_a_time_out(serve: Serve, part: str, words: str) -> None:
    store, registry = serve(ask=0.5, stall=0.5)
    registry.faults[part] = hang
    failure = await refused(store, registry)
    assert failure.reason == "RegistryUnavailable"
    assert words in failure.message


async def test_a_trickle_is_no_progress(serve: Serve) -> None:
    store, registry = serve(stall=0.5)
    registry.faults["layer"] = trickle
    failure = await refused(store, registry)
    assert failure.reason == "RegistryUnavailable"
    assert "stopped sending" in failure.message
    assert f"of {len(registry.image.blobs[registry.image.layers[0]])} in all" in failure.message


async def test_a_body_without_end_is_cut_off(serve: Serve) -> None:
    store, registry = serve()
    registry.faults["layer"] = endless
    failure = await refused(store, registry)
    assert failure.reason == "ErrImagePull"
    assert "sends more than" in failure.message


async def test_a_manifest_that_is_not_the_one_asked_for_is_refused(serve: Serve) -> None:
    store, registry = serve()
    wanted = digest(b"another")
    registry.more[wanted] = (registry.image.kind, registry.image.manifest)
    failure = await refused(store, registry, f"x/y@{wanted}")
    assert failure.reason == "ErrImagePull"
    assert f"expected {wanted}" in failure.message


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([file("../out", b"x")], "leaves the layer"),
        ([link("out", "/etc"), file("out/evil", b"x")], "leads through the symlink 'out'"),
        ([link("out", "/etc"), link("evil", "out/passwd", tarfile.LNKTYPE)], "leads through the symlink 'out'"),
        ([link("evil", "../../../etc/passwd", tarfile.LNKTYPE)], "leaves the layer"),
        ([device("disk", 8, 0, tarfile.BLKTYPE)], "device node 'disk'"),
        ([file("zeros", bytes(32 << 20))], "larger than"),
    ],
)
async def test_hostile_layers_are_refused(serve: Serve, entries: list[object], words: str) -> None:
    store, registry = serve(pack([entries]), layer=16 << 20)  # type: ignore[list-item]
    failure = await refused(store, registry)
    assert failure.reason == "ErrImagePull"
    assert words in failure.message
    assert not Path("/etc/evil").exists()


async def test_a_diff_id_that_is_not_the_layers_is_refused(serve: Serve) -> None:
    image = pack([[file("a", b"1")]])
    config = json.loads(image.blobs.pop(image.config))
    config["rootfs"]["diff_ids"] = [digest(b"another")]
    text = json.dumps(config).encode()
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": digest(text), "size": len(text)}
    image.config, image.blobs[digest(text)] = digest(text), text
    image.manifest = json.dumps(manifest).encode()
    store, registry = serve(image)
    assert "layer diff id is" in (await refused(store, registry)).message


async def test_the_manifest_of_this_platform_is_chosen(serve: Serve) -> None:
    store, registry = serve(pack([[file("a", b"1")]], docker=True))
    entry = {"mediaType": registry.image.kind, "digest": digest(registry.image.manifest), "size": 1}
    alien = {**entry, "digest": digest(b"alien"), "platform": {"os": "linux", "architecture": "s390x"}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [alien]}
    registry.index = (INDEX, json.dumps(index).encode())
    failure = await refused(store, registry)
    assert "no match for platform linux/amd64 in the manifest list, which has: linux/s390x" in failure.message
    index["manifests"] = [alien, {**entry, "platform": {"os": "linux", "architecture": "amd64"}}]
    registry.index = (INDEX, json.dumps(index).encode())
    image = await store.ensure(f"{registry.address}/x/y:1", "Always")
    assert image.repo_digest.endswith(digest(registry.index[1]))  # as the kubelet: what the tag stands for
    assert image.id == registry.image.config


async def test_artifacts_and_other_platforms_are_no_images(serve: Serve) -> None:
    chart = pack([[file("a")]])
    manifest = json.loads(chart.manifest)
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    chart.manifest = json.dumps(manifest).encode()
    store, registry = serve(chart)
    assert "not a container image" in (await refused(store, registry)).message
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    manifest["layers"][0]["mediaType"] += "+encrypted"
    chart.manifest = json.dumps(manifest).encode()
    assert "encrypted layers are not supported" in (await refused(store, registry)).message


async def test_layers_that_are_here_are_not_asked_for_again(serve: Serve) -> None:
    base = tar([file("base", NOISE)])
    store, registry = serve(pack([base]))
    await store.ensure(f"{registry.address}/x/base:1", "Always")
    assert registry.count("layer") == 1
    registry.image = pack([base, [file("more", b"1")]])
    image = await store.ensure(f"{registry.address}/x/more:1", "Always")
    assert len(image.layers) == 2
    assert registry.count("layer") == 2


async def test_several_logins_are_tried_and_the_wrong_ones_are_refused(serve: Serve) -> None:
    store, registry = serve()
    registry.logins = {"bob:right"}
    assert "unauthorized" in (await refused(store, registry)).message
    name = f"{registry.address}/x/y:1"
    wrong = (registry.address, {"username": "bob", "password": "wrong"})
    with pytest.raises(ImageFailure, match="unauthorized"):
        await store.ensure(name, "Always", logins=[wrong])
    image = await store.ensure(
        name, "Always", logins=[wrong, (f"{registry.address}/x", {"username": "bob", "password": "right"}), wrong]
    )
    assert image.id == registry.image.config

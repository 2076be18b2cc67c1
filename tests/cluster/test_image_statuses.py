"""What people see of an image that cannot be had, from the first try to the pod that runs after all."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD, SECRET
from podplane.statuses import shown
from podplane.v1 import config_pb2, pod_pb2
from tests.support.api import Api, Watch
from tests.support.archives import Packed, directory, file, link, pack
from tests.support.host import Host
from tests.support.hostile import Gate, Hostile, Request, say
from tests.support.images import BUSYBOX
from tests.support.objects import pod
from tests.support.registry import Registry
from tests.support.waiting import eventually

NODE = "node-2"
BACK_OFF = re.compile(r'Back-off pulling image "(\S+)": .+; next try at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ')


@pytest.fixture
def watch(api: Api) -> Iterator[Watch]:
    """Every event of pods from before the test; its pods are gone after it."""
    watch = api.watch(POD, "default")
    yield watch
    names = {event.object.metadata.name for event in watch} - {""}  # of bookmarks
    for name in names:
        if api.find(POD, name):
            api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name)
    watch.close()


@pytest.fixture
def faulty(hostile: Hostile) -> Iterator[Hostile]:
    """The hostile registry, as good as any again after the test."""
    yield hostile
    hostile.reset()


def imaged(name: str, image: str, **spec: Any) -> pod_pb2.Pod:
    return pod(name, image=image, nodeSelector={"kubernetes.io/hostname": NODE}, **spec)


def waiting(watch: Watch, name: str) -> list[tuple[str, str]]:
    """The waiting reasons of a pod's container and their messages, each once, in order."""
    found: list[tuple[str, str]] = []
    for event in watch:
        if event.object.metadata.name == name and event.object.status.containerStatuses:
            state = event.object.status.containerStatuses[0].state.waiting
            if state.reason and (not found or found[-1][0] != state.reason):
                found.append((state.reason, state.message))
    return found


def reasons(watch: Watch, name: str) -> list[str]:
    return [reason for reason, _ in waiting(watch, name)]


def _shown(watch: Watch, name: str, status: str) -> None:
    watch.wait(lambda event: event.object.metadata.name == name and shown(event.object) == status)


@pytest.mark.timeout(120)
def test_a_pod_waits_for_an_image_in_the_registrys_words_until_it_is_there(
    cluster: Cluster, api: Api, watch: Watch, registry: Registry, faulty: Hostile
) -> None:
    """404 of a real registry, 503 and 429 of a hostile one: said, backed off from, and over once they are over."""
    host = f"{cluster.address}:{faulty.port}"

    def by_path(request: Request, body: bytes) -> None:
        status = 429 if "/busy/" in request.path else 503
        say(status, "UNAVAILABLE", "too many" if status == 429 else "on holiday")(request, body)

    faulty.faults["manifest"] = by_path
    api.create(imaged("absent", f"{cluster.address}:{registry.port}/library/late:1"))
    api.create(imaged("down", f"{host}/down/image:1"))
    api.create(imaged("busy", f"{host}/busy/image:1"))
    for name in ("absent", "down", "busy"):
        _shown(watch, name, "ImagePullBackOff")
    faulty.reset()
    registry.push(BUSYBOX, "library/late:1")
    for name, first, words in (
        ("absent", "ErrImagePull", "manifest unknown"),
        ("down", "RegistryUnavailable", "503"),
        ("busy", "ErrImagePull", "429"),
    ):
        api.running(name)
        seen = [entry for entry in waiting(watch, name) if entry[0] != "ContainerCreating"]
        assert [reason for reason, _ in seen] == [first, "ImagePullBackOff"], seen
        assert all(words in message for _, message in seen), seen
        assert BACK_OFF.match(seen[1][1]), seen[1][1]


def test_a_private_image_needs_its_secret(cluster: Cluster, api: Api, watch: Watch, faulty: Hostile) -> None:
    host = f"{cluster.address}:{faulty.port}"
    faulty.logins = {"me:s3cret"}
    login = {"auths": {host: {"auth": base64.b64encode(b"me:s3cret").decode()}}}
    secret = config_pb2.Secret(apiVersion="v1", kind="Secret", type="kubernetes.io/dockerconfigjson")
    secret.metadata.name, secret.metadata.namespace = "login", "default"
    secret.data[".dockerconfigjson"] = json.dumps(login).encode()
    api.create(secret)
    try:
        api.create(imaged("stranger", f"{host}/private/image:1"))
        _shown(watch, "stranger", "ImagePullBackOff")
        (first, words), *_ = [each for each in waiting(watch, "stranger") if each[0] != "ContainerCreating"]
        assert first == "ErrImagePull"
        assert "unauthorized" in words
        api.create(imaged("friend", f"{host}/private/image:1", imagePullSecrets=[{"name": "login"}]))
        watch.up_to(api.running("friend"))
        assert "ErrImagePull" not in reasons(watch, "friend")
    finally:
        api.delete(SECRET, "login")


def test_a_damaged_image_is_said_and_pulled_again_by_those_who_ask(
    cluster: Cluster, api: Api, watch: Watch, faulty: Hostile
) -> None:
    image = f"{cluster.address}:{faulty.port}/damaged/image:1"
    api.create(imaged("before", image))
    found = api.running("before").status.containerStatuses[0]
    config = faulty.image.config
    damaged = cluster.root / NODE / "images" / "configs" / config.partition(":")[2]
    kept = damaged.read_bytes()
    assert config.partition(":")[2] in str(damaged)
    assert found.imageID
    damaged.write_text("{}")
    try:
        api.create(imaged("after", image))
        _shown(watch, "after", "ImageInspectError")
        again = imaged("again", image)
        again.spec.containers[0].imagePullPolicy = "Always"
        api.create(again)
        api.running("again")
    finally:
        damaged.write_bytes(kept)


def sized(name: str) -> Packed:
    """An image of one layer that no other test has had, and of more than a megabyte."""
    program = file("bin/busybox", Path("/usr/bin/busybox").read_bytes(), 0o755)
    return pack([[directory("bin"), program, link("bin/sleep", "busybox"), file(name, os.urandom(200_000))]])


def test_one_pull_serves_all_who_wait_and_says_how_far_it_is(
    cluster: Cluster, api: Api, watch: Watch, faulty: Hostile
) -> None:
    image = f"{cluster.address}:{faulty.port}/shared/image:1"
    faulty.image, gate = sized("shared"), Gate(150_000)
    faulty.faults["layer"] = gate
    names = [f"sharer-{number}" for number in range(3)]
    for name in names:
        api.create(imaged(name, image))
    words = re.compile(rf'Pulling image "{re.escape(image)}": (\S+) KiB of \d\.\d MiB')
    for name in names:
        found = watch.wait(lambda event, name=name: _pulled(event.object, name, words))  # type: ignore[misc]
        assert shown(found.object) == "ContainerCreating"
    gate.open()
    for name in names:
        api.running(name)
    assert faulty.count("layer") == 1


def _pulled(found: pod_pb2.Pod, name: str, words: re.Pattern[str]) -> bool:
    if found.metadata.name != name or not found.status.containerStatuses:
        return False
    said = words.fullmatch(found.status.containerStatuses[0].state.waiting.message)
    return said is not None and 100 < float(said[1]) < 200


def removed(cluster: Cluster, since: int) -> str:
    """What the agent said of images that it has removed."""
    lines = cluster.log(NODE).read_text()[since:].splitlines()
    return "\n".join(line for line in lines if "removed image" in line)


COLLECT = {
    "PODPLANE_IMAGE_GC_HIGH_THRESHOLD": "1",
    "PODPLANE_IMAGE_GC_LOW_THRESHOLD": "0",
    "PODPLANE_IMAGE_MINIMUM_GC_AGE": "0s",
}


def test_an_image_goes_when_the_disk_is_full_unless_a_pod_has_it(
    cluster: Cluster, api: Api, watch: Watch, faulty: Hostile
) -> None:
    """Any disk is, by a threshold of 1 %; what is left behind is that a pod can still be made of the one image only."""
    host = f"{cluster.address}:{faulty.port}"
    images = {name: f"{host}/{name}/image:1" for name in ("used", "unused")}
    uids = {}
    for name, image in images.items():
        faulty.image = sized(name)
        uids[name] = api.create(imaged(name, image)).metadata.uid
        api.running(name)
    api.delete(POD, "unused", grace=0)
    traces = Host(cluster, NODE).traces
    eventually(lambda: uids["unused"] not in {uid for uid, _ in traces()}, what="the end of all that is made of it")
    cluster.kill(NODE)
    said = len(cluster.log(NODE).read_text())
    cluster.start_node(NODE, COLLECT)
    try:
        eventually(lambda: images["unused"] in removed(cluster, said), what="its end")
        for name, image in images.items():
            made = imaged(f"again-{name}", image)
            made.spec.containers[0].imagePullPolicy = "Never"
            api.create(made)
        api.running("again-used")
        _shown(watch, "again-unused", "ErrImageNeverPull")
        assert api.running("used").status.containerStatuses[0].restartCount == 0
        assert images["used"] not in removed(cluster, said)
    finally:
        cluster.kill(NODE)
        cluster.start_node(NODE)

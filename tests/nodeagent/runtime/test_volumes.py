"""Volumes on the real kernel: contents, modes, updates, refusals, and that nothing stays."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from nodeagent import syscalls
from nodeagent.runtime.fields import PodFacts
from nodeagent.runtime.volumes import VolumeFailure, Volumes, memory_size
from podplane.v1.config_pb2 import ConfigMap, Secret
from podplane.v1.pod_pb2 import Pod
from podplane.v1.volume_pb2 import EmptyDirVolumeSource

UID = "0b5c4f1e-volumes"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "state").mkdir()
    (tmp_path / "run").mkdir()
    syscalls.mount("tmpfs", tmp_path / "run", "tmpfs", 0, "mode=700")
    yield tmp_path
    syscalls.umount2(tmp_path / "run")


@pytest.fixture
async def volumes(base: Path) -> Volumes:
    return Volumes(base / "state", base / "run", facts=PodFacts("node-1", "10.0.0.1", ""))


def pod(*volumes: dict[str, object], **spec: object) -> Pod:
    made = json_format.ParseDict({"volumes": list(volumes), **spec}, Pod().spec)
    whole = Pod(spec=made)
    whole.metadata.name, whole.metadata.namespace, whole.metadata.uid = "web", "default", UID
    whole.metadata.labels["app"] = "web"
    return whole


def config_map(**data: str) -> dict[tuple[str, str, str], object]:
    return {("ConfigMap", "default", "settings"): ConfigMap(data=data)}


CONFIG: dict[str, object] = {"name": "settings", "configMap": {"name": "settings"}}


async def test_a_config_map_becomes_files(volumes: Volumes) -> None:
    found = await volumes.prepare(pod(CONFIG), config_map(a="1", b="2"))
    path = found["settings"]
    assert {name: (path / name).read_text() for name in ("a", "b")} == {"a": "1", "b": "2"}
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o644
    assert os.readlink(path / "a") == "..data/a"
    await volumes.remove(UID)
    assert not path.exists()


async def test_items_paths_and_modes_hold(volumes: Volumes) -> None:
    items = [{"key": "a", "path": "deep/er/x", "mode": 0o400}, {"key": "b", "path": "y"}]
    asked: dict[str, object] = {"name": "v", "configMap": {"name": "settings", "items": items, "defaultMode": 0o600}}
    path = (await volumes.prepare(pod(asked), config_map(a="1", b="2", c="3")))["v"]
    assert (path / "deep/er/x").read_text() == "1"
    assert stat.S_IMODE((path / "deep/er/x").stat().st_mode) == 0o400
    assert stat.S_IMODE((path / "y").stat().st_mode) == 0o600
    assert sorted(item.name for item in path.iterdir() if not item.name.startswith("..")) == ["deep", "y"]
    await volumes.remove(UID)


async def test_an_update_swaps_all_keys_at_once(volumes: Volumes) -> None:
    asked = pod(CONFIG)
    path = (await volumes.prepare(asked, config_map(a="1", b="1")))["settings"]
    held = os.open(path / "..data", os.O_RDONLY | os.O_DIRECTORY)
    await volumes.update(asked, config_map(a="2", c="2"))
    assert sorted(os.listdir(path / "..data")) == ["a", "c"]
    assert sorted(item.name for item in path.iterdir() if not item.name.startswith("..")) == ["a", "c"]
    assert os.listdir(held) == [], "the old set is gone as a whole, not changed in place"
    os.close(held)
    before = os.readlink(path / "..data")
    await volumes.update(asked, config_map(a="2", c="2"))
    assert os.readlink(path / "..data") == before
    await volumes.remove(UID)


async def test_secrets_are_in_memory_only(base: Path, volumes: Volumes) -> None:
    asked = pod({"name": "s", "secret": {"secretName": "key", "defaultMode": 0o400}}, securityContext={"fsGroup": 77})
    path = (await volumes.prepare(asked, {("Secret", "default", "key"): Secret(data={"k": b"\x00hush"})}))["s"]
    assert (path / "k").read_bytes() == b"\x00hush"
    assert (stat.S_IMODE((path / "k").stat().st_mode), (path / "k").stat().st_gid) == (0o440, 77)
    assert any(line.split()[4] == str(path) and " - tmpfs " in line for line in _mounts())
    assert not any(item.read_bytes() == b"\x00hush" for item in (base / "state").rglob("*") if item.is_file())
    await volumes.remove(UID)
    await volumes.remove(UID)
    assert not any(str(path) in line for line in _mounts())


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (CONFIG, 'MountVolume.SetUp failed for volume "settings" : configmap "settings" not found'),
        ({"name": "s", "secret": {"secretName": "key"}},
         'MountVolume.SetUp failed for volume "s" : secret "key" not found'),
        ({"name": "n", "iscsi": {"targetPortal": "x"}},
         'MountVolume.SetUp failed for volume "n" : volume source iscsi is not supported'),
    ],
)  # fmt: skip
async def test_what_is_missing_is_named(volumes: Volumes, volume: dict[str, object], message: str) -> None:
    with pytest.raises(VolumeFailure) as caught:
        await volumes.prepare(pod(volume), {})
    assert (caught.value.reason, caught.value.message) == ("FailedMount", message)


async def test_a_missing_key_is_named_unless_optional(volumes: Volumes) -> None:
    source = {"name": "settings", "items": [{"key": "k", "path": "k"}]}
    with pytest.raises(VolumeFailure, match="references non-existent config key: k"):
        await volumes.prepare(pod({"name": "v", "configMap": source}), config_map(a="1"))
    optional = pod({"name": "v", "configMap": {**source, "optional": True}})
    assert list((await volumes.prepare(optional, config_map(a="1")))["v"].glob("[!.]*")) == []
    await volumes.update(optional, config_map(k="late"))
    assert ((await volumes.prepare(optional, config_map(k="late")))["v"] / "k").read_text() == "late"
    await volumes.remove(UID)


async def test_projected_and_downward_files(volumes: Volumes) -> None:
    down = {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                      {"path": "node", "fieldRef": {"fieldPath": "spec.nodeName"}}]}  # fmt: skip
    sources = [{"configMap": {"name": "settings"}}, {"downwardAPI": down}]
    path = (await volumes.prepare(pod({"name": "p", "projected": {"sources": sources}}), config_map(a="1")))["p"]
    assert {item: (path / item).read_text() for item in ("a", "labels", "node")} == {
        "a": "1", "labels": 'app="web"', "node": "node-1"}  # fmt: skip
    await volumes.remove(UID)


DOWN = {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                  {"path": "deep/one", "fieldRef": {"fieldPath": "metadata.annotations['note']"}, "mode": 0o400},
                  {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu",
                                                       "divisor": "1m"}}]}  # fmt: skip
APP = [{"name": "app", "resources": {"limits": {"cpu": "250m"}}}]


async def test_downward_files_follow_labels_and_annotations(volumes: Volumes) -> None:
    asked = pod({"name": "d", "downwardAPI": {**DOWN, "defaultMode": 0o440}}, containers=APP)
    asked.metadata.annotations["note"] = "first"
    path = (await volumes.prepare(asked, {}))["d"]
    assert {name: (path / name).read_text() for name in ("labels", "deep/one", "cpu")} == {
        "labels": 'app="web"', "deep/one": "first", "cpu": "250"}  # fmt: skip
    assert [stat.S_IMODE((path / name).stat().st_mode) for name in ("labels", "deep/one")] == [0o440, 0o400]
    asked.metadata.annotations["note"] = "second"
    asked.metadata.labels["say"] = 'a "b"\n\x01'
    await volumes.update(asked, {})
    assert (path / "labels").read_text() == 'app="web"\nsay="a \\"b\\"\\n\\x01"'
    assert (path / "deep/one").read_text() == "second"
    await volumes.remove(UID)


async def test_a_projected_volume_puts_every_source_in_one_directory_in_memory(base: Path, volumes: Volumes) -> None:
    items = [{"key": "k", "path": "keys/k", "mode": 0o400}]
    sources = [{"configMap": {"name": "settings"}}, {"secret": {"name": "key", "items": items}},
               {"downwardAPI": DOWN}, {"configMap": {"name": "absent", "optional": True}}]  # fmt: skip
    asked = pod({"name": "p", "projected": {"sources": sources, "defaultMode": 0o444}}, containers=APP)
    objects = {**config_map(a="1"), ("Secret", "default", "key"): Secret(data={"k": b"hush", "other": b"not asked"})}
    path = (await volumes.prepare(asked, objects))["p"]
    held = {str(item.relative_to(path / "..data")) for item in (path / "..data/").rglob("*") if item.is_file()}
    assert held == {"a", "keys/k", "labels", "deep/one", "cpu"}
    assert [stat.S_IMODE((path / name).stat().st_mode) for name in ("a", "keys/k")] == [0o444, 0o400]
    assert not any(b"hush" in item.read_bytes() for item in (base / "state").rglob("*") if item.is_file())
    before = os.readlink(path / "..data")
    await volumes.update(asked, {**objects, ("ConfigMap", "default", "absent"): ConfigMap(data={"late": "1"})})
    assert (path / "late").read_text() == "1"
    assert os.readlink(path / "..data") != before
    with pytest.raises(VolumeFailure, match='volume "p" : secret "key" not found'):
        await volumes.update(asked, config_map(a="2"))
    assert (path / "a").read_text() == "1", "what cannot be made whole keeps its files"
    await volumes.remove(UID)


async def test_the_fs_group_owns_every_volume_but_host_paths(base: Path, volumes: Volumes) -> None:
    (base / "host").mkdir(mode=0o755)
    items = [{"key": "a", "path": "deep/a"}]
    asked = pod(
        {"name": "d", "emptyDir": {}},
        {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "c", "configMap": {"name": "settings", "items": items, "defaultMode": 0o400}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "settings", "items": items}}]}},
        {"name": "h", "hostPath": {"path": f"{base}/host"}},
        securityContext={"fsGroup": 77},
    )
    found = await volumes.prepare(asked, config_map(a="1"))

    def of(name: str, below: str = "") -> tuple[int, int]:
        seen = (found[name] / below).stat()
        return stat.S_IMODE(seen.st_mode), seen.st_gid

    assert [of("d"), of("m")] == [(0o2777, 77), (0o2777, 77)]
    assert [of("c"), of("c", "deep"), of("c", "deep/a")] == [(0o2755, 77), (0o2755, 77), (0o440, 77)]
    assert [of("p"), of("p", "deep"), of("p", "deep/a")] == [(0o2755, 77), (0o2755, 77), (0o644, 77)]
    assert of("h") == (0o755, 0)
    await volumes.remove(UID)


async def test_preparing_again_keeps_the_mode_that_a_container_gave(volumes: Volumes) -> None:
    asked = pod({"name": "d", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}})
    for path in (await volumes.prepare(asked, {})).values():
        path.chmod(0o700)
    again = await volumes.prepare(asked, {})
    assert [stat.S_IMODE(path.stat().st_mode) for path in again.values()] == [0o700, 0o700]
    await volumes.remove(UID)


@pytest.mark.parametrize(
    ("size", "limits", "allocatable", "expected"),
    [("1Mi", [], "", 1 << 20), ("", ["64Mi", "64Mi"], "1Gi", 128 << 20), ("", ["64Mi", ""], "1Gi", 1 << 30),
     ("2Gi", [], "1Gi", 1 << 30), ("0", [], "", 0), ("", [], "", 0)],
)  # fmt: skip
def test_an_empty_dir_in_memory_is_bounded(size: str, limits: list[str], allocatable: str, expected: int) -> None:
    made = [{"name": f"c{index}", "resources": {"limits": {"memory": text} if text else {}}}
            for index, text in enumerate(limits)]  # fmt: skip
    asked = EmptyDirVolumeSource(medium="Memory", sizeLimit=size or None)
    assert memory_size(pod(containers=made), asked, allocatable) == expected


async def test_a_sub_path_of_a_key_that_comes_later_gives_way_to_it(volumes: Volumes) -> None:
    optional = pod({"name": "v", "configMap": {"name": "settings", "optional": True}})
    path = (await volumes.prepare(optional, {}))["v"]
    assert (await volumes.subpath(UID, "app", 0, path, "a")).is_dir()
    await volumes.update(optional, config_map(b="1"))
    assert (path / "a").is_dir()
    await volumes.update(optional, config_map(a="1"))
    assert (path / "a").read_text() == "1"
    assert (await volumes.subpath(UID, "app", 0, path, "a")).read_text() == "1"
    await volumes.remove(UID)


async def test_empty_dirs_keep_their_content_until_removed(volumes: Volumes) -> None:
    asked = pod({"name": "d", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    found = await volumes.prepare(asked, {})
    (found["d"] / "x").write_text("kept")
    assert [stat.S_IMODE(path.stat().st_mode) for path in found.values()] == [0o777, 0o777]
    with pytest.raises(OSError, match="No space left"):
        (found["m"] / "big").write_bytes(b"x" * (2 << 20))
    again = await volumes.prepare(asked, {})
    assert (again["d"] / "x").read_text() == "kept"
    await volumes.remove(UID)
    assert not any(path.exists() for path in found.values())


HOST_KINDS = {"Directory": "directory", "File": "file", "Socket": "socket file", "CharDevice": "character device",
              "BlockDevice": "block device"}  # fmt: skip
"""The types of host paths that create nothing, and what Kubernetes calls each."""


@pytest.fixture
def host(base: Path) -> Path:
    """A directory of the node with one thing of each type, called as the type."""
    made = base / "host"
    (made / "Directory").mkdir(parents=True)
    (made / "File").write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(made / "Socket"))
    for name, kind in (("CharDevice", stat.S_IFCHR), ("BlockDevice", stat.S_IFBLK)):
        os.mknod(made / name, kind | 0o600, os.makedev(1, 3))
    return made


def host_path(path: Path, kind: str) -> Pod:
    return pod({"name": "h", "hostPath": {"path": str(path), "type": kind}})


@pytest.mark.parametrize("found", HOST_KINDS)
async def test_a_host_path_is_of_its_type_or_refused_in_kubernetes_words(
    host: Path, volumes: Volumes, found: str
) -> None:
    path = host / found
    (host / "link").symlink_to(found)
    creating = {"Directory": "DirectoryOrCreate", "File": "FileOrCreate"}
    for kind in ("", found, creating.get(found, found)):
        assert await volumes.prepare(host_path(path, kind), {}) == {"h": path}
        assert await volumes.prepare(host_path(host / "link", kind), {}) == {"h": path}
    for kind in HOST_KINDS.keys() - {found}:
        for asked in {kind, creating.get(kind, kind)}:
            with pytest.raises(VolumeFailure) as caught:
                await volumes.prepare(host_path(path, asked), {})
            words = f"hostPath type check failed: {path} is not a {HOST_KINDS[kind]}"
            assert caught.value.message == f'MountVolume.SetUp failed for volume "h" : {words}'
            assert caught.value.reason == "FailedMount"


async def test_what_is_missing_is_made_where_the_type_says_so(host: Path, volumes: Volumes) -> None:
    for kind, name in (("", "any/deep"), ("DirectoryOrCreate", "made/deep"), ("FileOrCreate", "fresh")):
        await volumes.prepare(host_path(host / name, kind), {})
    modes = [stat.filemode((host / name).stat().st_mode) for name in ("any/deep", "made", "made/deep", "fresh")]
    assert modes == ["drwxr-xr-x", "drwxr-xr-x", "drwxr-xr-x", "-rw-r--r--"]
    # As the kubelet: no directory is made for a file.
    with pytest.raises(VolumeFailure, match="No such file or directory"):
        await volumes.prepare(host_path(host / "no/such", "FileOrCreate"), {})
    for kind, word in HOST_KINDS.items():
        with pytest.raises(VolumeFailure, match=f"hostPath type check failed: {host}/absent is not a {word}"):
            await volumes.prepare(host_path(host / "absent", kind), {})
    assert not (host / "absent").exists()
    await volumes.remove(UID)
    assert (host / "made/deep").is_dir()


@pytest.mark.parametrize("path", ["{base}/state", "{base}/state/pki", "{base}/link", "{base}", "relative", "/a/../b"])
async def test_the_daemons_directories_are_refused(base: Path, volumes: Volumes, path: str) -> None:
    (base / "link").symlink_to(base / "state")
    with pytest.raises(VolumeFailure, match=r"not allowed|must be absolute"):
        await volumes.prepare(pod({"name": "h", "hostPath": {"path": path.format(base=base)}}), {})


async def test_only_allowed_host_paths(base: Path) -> None:
    strict = Volumes(base / "state", base / "run", host_path_allow=[base / "open"])
    await strict.prepare(pod({"name": "h", "hostPath": {"path": f"{base}/open/x"}}), {})
    with pytest.raises(VolumeFailure, match="is not allowed on this node"):
        await strict.prepare(pod({"name": "h", "hostPath": {"path": f"{base}/opener"}}), {})


async def test_sub_paths_stay_in_their_volume(base: Path, volumes: Volumes) -> None:
    path = (await volumes.prepare(pod({"name": "d", "emptyDir": {}}), {}))["d"]
    (path / "file").write_text("f")
    (path / "out").symlink_to("/etc")
    assert (await volumes.subpath(UID, "app", 0, path, "file")).read_text() == "f"
    made = await volumes.subpath(UID, "app", 1, path, "new/dir")
    (made / "x").write_text("x")
    assert (path / "new/dir/x").read_text() == "x"
    for bad in ("out/passwd", "../x", "/etc", "out"):
        with pytest.raises(VolumeFailure):
            await volumes.subpath(UID, "app", 2, path, bad)
    await volumes.remove(UID)
    assert not any(str(base / "run/subpaths") in line for line in _mounts())


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()

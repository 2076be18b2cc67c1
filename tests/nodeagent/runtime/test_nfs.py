"""NFS volumes without a server: what is run, what is removed and what is not, and whom a path that hangs holds up.

tests/vm/test_nfs.py has the servers.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import syscalls
from nodeagent.runtime.apart import apart
from nodeagent.runtime.nfs import NfsMounts, arguments, mounted
from nodeagent.runtime.volumes import VolumeFailure, Volumes
from podplane.v1.pod_pb2 import Pod
from podplane.v1.volume_pb2 import NFSVolumeSource


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="podplane-test-", dir="/var/tmp") as made:
        yield Path(made)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (NFSVolumeSource(server="nas.example", path="/e"), ["nas.example:/e", "/t", "-o", "rw,retry=0"]),
        (NFSVolumeSource(server="fd00::1", path="/e", readOnly=True), ["[fd00::1]:/e", "/t", "-o", "ro,retry=0"]),
    ],
)
def test_what_mount_is_run_with(asked: NFSVolumeSource, expected: list[str]) -> None:
    assert arguments(asked, Path("/t")) == expected


async def test_removing_unmounts_and_deletes_nothing_of_what_was_mounted(base: Path) -> None:
    data, mounts = base / "data", NfsMounts(base / "run")
    data.mkdir()
    (data / "file").write_text("kept")
    target = base / "run/nfs/uid-1/share"
    target.mkdir(parents=True)
    syscalls.mount(data, target, None, syscalls.MS_BIND)
    assert str(target) in mounted()
    assert await mounts.mount("uid-1", "share", NFSVolumeSource(server="x", path="/")) == target  # it stands already
    await mounts.remove("uid-1")
    await mounts.remove("uid-1")
    assert str(target) not in mounted()
    assert not target.parent.exists()
    assert (data / "file").read_text() == "kept"


async def test_what_is_not_mounted_is_never_deleted_recursively(base: Path) -> None:
    left = base / "run/nfs/uid-1/share/file"
    left.parent.mkdir(parents=True)
    left.write_text("a server's, for all we know")
    with pytest.raises(OSError, match="not empty"):
        await NfsMounts(base / "run").remove("uid-1")
    assert left.exists()


async def test_a_server_that_cannot_be_had_is_a_failed_mount_that_names_the_volume(base: Path) -> None:
    pod = Pod()
    pod.metadata.uid = "uid-1"
    pod.spec.volumes.add(name="n").nfs.MergeFrom(NFSVolumeSource(server="127.0.0.1", path="/none"))
    volumes = Volumes(base / "state", base / "run")
    with pytest.raises(VolumeFailure, match=r'^MountVolume.SetUp failed for volume "n" : mount ') as caught:
        await volumes.prepare(pod, {})
    assert caught.value.reason == "FailedMount"
    await volumes.remove("uid-1")


async def test_work_that_hangs_holds_up_nobody_but_its_caller(base: Path) -> None:
    fifo, told = base / "fifo", []
    os.mkfifo(fifo)
    hung = 12  # more than the pool has threads

    async def late() -> None:
        def work(is_given_up: object) -> None:
            os.close(os.open(fifo, os.O_RDONLY))  # waits in the kernel, as for a server
            told.append(is_given_up() if callable(is_given_up) else None)

        async with asyncio.timeout(0.2):
            await apart(work, "hung")

    begun = time.monotonic()
    results = await asyncio.gather(*(late() for _ in range(hung)), return_exceptions=True)
    assert [type(result) for result in results] == [TimeoutError] * hung
    assert await asyncio.to_thread(lambda: "free") == "free"
    assert time.monotonic() - begun < 10
    writer = os.open(fifo, os.O_WRONLY)
    async with asyncio.timeout(20):
        while len(told) < hung:
            await asyncio.sleep(0.01)
    os.close(writer)
    assert told == [True] * hung


async def test_what_it_returns_and_raises_is_the_callers() -> None:
    assert await apart(lambda _given_up: 7, "works") == 7
    with pytest.raises(ZeroDivisionError):
        await apart(lambda _given_up: 1 // 0, "fails")

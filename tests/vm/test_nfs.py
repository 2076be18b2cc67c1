"""NFS volumes with a real server and the kernel's client, and what happens when the server goes silent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.conftest import MakeDisk, MakeMachine
from tests.vm.lan import Lan
from tests.vm.machine import CHECKOUT, Machine, Shape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

SERVER = "10.9.0.2"

# The agent's own parts on a node: what each step gives, and how long it takes, a line of JSON each.
STEPS = """
import asyncio, json, sys, time
from pathlib import Path
from nodeagent.runtime.volumes import VolumeFailure, Volumes
from podplane.v1.pod_pb2 import Pod

def pod(uid, path, server, **nfs):
    made = Pod()
    made.metadata.uid = uid
    source = made.spec.volumes.add(name="share").nfs
    source.server, source.path = server, path
    source.readOnly = nfs.get("readOnly", False)
    return made

def plain(uid):
    made = Pod()
    made.metadata.uid = uid
    made.spec.volumes.add(name="d").emptyDir.SetInParent()
    return made

def say(**what):
    print(json.dumps(what), flush=True)

async def main(server):
    volumes = Volumes(Path("/var/lib/state"), Path("/run/agent"))
    Path("/run/agent").mkdir(exist_ok=True)
    share = (await volumes.prepare(pod("one", "/export", server), {}))["share"]
    (share / "written").write_text("by a pod")
    again = (await volumes.prepare(pod("one", "/export", server), {}))["share"]
    say(read=(share / "file").read_text(), again=str(again))
    only = (await volumes.prepare(pod("two", "/export", server, readOnly=True), {}))["share"]
    try:
        (only / "new").write_text("x")
    except OSError as error:
        say(readOnly=error.strerror)
    pinned = await volumes.subpath("one", "app", 0, share, "sub/dir")
    say(pinned=pinned.is_dir())
    try:
        await volumes.prepare(pod("three", "/none", server), {})
    except VolumeFailure as failure:
        say(refused=failure.message)
    sys.stdin.readline()  # the server is silent from here on
    hung = [asyncio.create_task(volumes.subpath(uid, "app", n, share, f"fresh-{n}/deep"))
            for n, uid in enumerate(["one"] * 12)]
    await asyncio.sleep(0)
    begun = time.monotonic()
    for number in range(8):
        await volumes.prepare(plain(f"plain-{number}"), {})
    say(others=time.monotonic() - begun, hung=sum(not task.done() for task in hung))
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    begun = time.monotonic()
    await volumes.remove("one")
    await volumes.remove("two")
    say(removed=time.monotonic() - begun, left=[p for p in Path("/proc/mounts").read_text().split() if "nfs/" in p])

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def machines(boot: MakeMachine, make_disk: MakeDisk) -> Iterator[tuple[Machine, Machine]]:
    with Lan("10.9.0.1/24") as lan:
        server = boot(Shape("server", disk=make_disk("server"), nic=lan.nic(SERVER), cpus=1, memory=512))
        server.shell(
            "mkdir -p /export/sub && echo hello >/export/file && chmod -R 0777 /export"
            " && echo '/export *(rw,sync,no_root_squash,insecure,no_subtree_check)' >/etc/exports"
            " && systemctl unmask nfs-server && systemctl start nfs-server && exportfs -ra",
            seconds=60,
        )
        client = boot(Shape("client", disk=make_disk("client"), nic=lan.nic("10.9.0.3"), cpus=2, memory=512))
        yield server, client
        server.close()
        client.close()


def test_a_share_is_mounted_and_a_silent_server_holds_up_its_own_pod_only(machines: tuple[Machine, Machine]) -> None:
    server, client = machines
    packages = CHECKOUT / ".venv/lib/python3.11/site-packages"
    environment = {**client.environment, "PYTHONPATH": f"{CHECKOUT}:{packages}"}
    # The disk's own Python: the one of the virtual environment may lie outside the checkout.
    work = client.start("/usr/bin/python3", "-u", "-c", STEPS, SERVER, env=environment, cwd=CHECKOUT)
    work.until(lambda output: b"refused" in output, 120 * client.slowness)
    said = _lines(work.output)
    assert said[0]["read"] == "hello\n"
    assert said[0]["again"] == "/run/agent/nfs/one/share"
    assert said[1] == {"readOnly": "Read-only file system"}
    assert said[2] == {"pinned": True}
    assert said[3]["refused"].startswith(
        'MountVolume.SetUp failed for volume "share" : mount of 10.9.0.2:/none failed: '
    )
    assert server.read("/export/written") == b"by a pod"
    server.power_cut()
    work.feed(b"\n")
    status = work.wait(300 * client.slowness)
    assert status == 0, work.errors.decode()
    said = _lines(work.output)
    others, removed = said[4], said[5]
    assert others["hung"] == 12, "nothing waited for the server: this shows nothing"
    assert others["others"] < 5 * client.slowness
    assert removed["removed"] < 60 * client.slowness
    assert removed["left"] == []


def _lines(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]

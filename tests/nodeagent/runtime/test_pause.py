"""Pods whose containers share their processes: the pause process on the real kernel, under the real runtime."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.runtime import pause
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.pause import Parts, PauseProcesses
from nodeagent.sandbox.sandboxes import Sandboxes, SandboxFailure
from nodeagent.types import ContainerRequest, Sandbox, SandboxRequest, Security
from tests.nodeagent.runtime.conftest import Node, ran
from tests.support.waiting import eventually


class Shared:
    """A node with one sandbox whose containers share their processes."""

    def __init__(self, node: Node, runtime: ContainerRuntime) -> None:
        self.node, self.runtime = node, runtime
        self.asked = SandboxRequest(
            "uid-1", 0, "x", None, host_network=True, pause_cgroup=f"{node.cgroup}/poduid-1/pause"
        )
        self.sandboxes = self.successor()

    def successor(self) -> Sandboxes:
        """What the next agent has."""
        parts = Parts(self.runtime.programs, self.runtime.facts, self.runtime.filters)
        return Sandboxes(self.node.run, None, PauseProcesses(self.node.run, self.runtime.cgroups, parts))

    @property
    def pid(self) -> int:
        (pid,) = self.runtime.cgroups.processes(self.asked.pause_cgroup)
        return pid

    async def starts(self, box: Sandbox, name: str, *command: str) -> ContainerRequest:
        request = self.node.request(*command, name=name, sandbox=box)
        await self.runtime.create(request)
        await self.runtime.start(request.id)
        return request

    def left(self) -> list[str]:
        """What there is of sandboxes and pause processes, but for what the node has once."""
        found = [*(self.node.run / "sandboxes").glob("*"), *(self.node.run / "pause").glob("[!r]*/*")]
        return [str(path) for path in (*found, *Path("/sys/fs/cgroup").glob(f"*/{self.asked.pause_cgroup}"))]


@pytest.fixture
async def shared(node: Node, runtime: ContainerRuntime) -> AsyncIterator[Shared]:
    made = Shared(node, runtime)
    yield made
    await made.successor().cleanup()
    assert made.left() == []


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_a_pause_process_is_the_first_of_its_namespace_and_nobody(shared: Shared) -> None:
    box = await shared.sandboxes.create(shared.asked)
    assert box.pid is not None
    # The runtime is back a moment before the program runs.
    eventually(lambda: status(shared.pid)["Name"] == "pause", what="the program")
    facts = status(shared.pid)
    assert facts["NSpid"].split()[-1] == "1"
    assert set(facts["Uid"].split()) == {"65535"}
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert sorted(os.listdir(f"/proc/{shared.pid}/root")) == ["dev", "pause", "proc"]
    assert os.stat(box.pid).st_ino == os.stat(f"/proc/{shared.pid}/ns/pid").st_ino
    assert os.readlink(f"/proc/{shared.pid}/ns/ipc") != os.readlink("/proc/self/ns/ipc")
    assert await shared.sandboxes.create(shared.asked) == box


async def test_containers_see_and_kill_each_other_and_pause_reaps_what_they_leave(
    shared: Shared, node: Node, runtime: ContainerRuntime
) -> None:
    box = await shared.sandboxes.create(shared.asked)
    victim = await shared.starts(box, "victim", "sleep", "1234567")
    script = "sh -c 'sleep 0.01 & exit 0'; cat /proc/1/comm; pkill -f '^sleep 1234567'; exec sleep 7654321"
    other = await shared.starts(box, "other", "sh", "-c", script)
    end = await asyncio.wait_for(runtime.exits.get(), 20)
    assert (end.id, end.code) == (victim.id, 143)
    assert node.log(other).split() == ["pause"]
    eventually(lambda: zombies(shared.pid) == [], what="the orphan, reaped")
    mine = runtime.pid(other.id)
    assert os.stat(f"/proc/{mine}/ns/pid").st_ino == os.stat(f"/proc/{shared.pid}/ns/pid").st_ino
    assert os.stat(f"/proc/{mine}/ns/mnt").st_ino != os.stat(f"/proc/{shared.pid}/ns/mnt").st_ino


def zombies(first: int) -> list[int]:
    """Children of a process that have ended and were not reaped."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]


async def test_the_end_of_a_container_takes_what_it_left_along_and_nobody_else(
    shared: Shared, runtime: ContainerRuntime
) -> None:
    box = await shared.sandboxes.create(shared.asked)
    stayer = await shared.starts(box, "stayer", "sleep", "600")
    leaver = shared.node.request("sh", "-c", "setsid sleep 600 & exit 3", name="leaver", sandbox=box)
    assert (await ran(runtime, leaver)).code == 3
    assert runtime.cgroups.processes(leaver.cgroup) == set()
    assert len(runtime.cgroups.processes(stayer.cgroup)) == 1


async def test_a_container_that_may_trace_finds_nothing_of_the_node_in_the_pause_process(
    shared: Shared, node: Node, runtime: ContainerRuntime
) -> None:
    box = await shared.sandboxes.create(shared.asked)
    script = "ls /proc/1/root/ /proc/1/root/../..; echo x > /proc/1/exe || echo refused"
    request = node.request("sh", "-c", script, sandbox=box, security=Security(add_capabilities=("SYS_PTRACE",)))
    assert (await ran(runtime, request)).code == 0
    words = node.log(request).split()
    assert set(words) & {"etc", "usr", "var", "home", "root"} == set()
    assert words.count("pause") == 2
    assert "refused" in words


async def test_the_next_agent_finds_it_and_removes_it(shared: Shared) -> None:
    box = await shared.sandboxes.create(shared.asked)
    before, successor = shared.pid, shared.successor()
    assert await successor.list() == [box]
    assert await successor.create(shared.asked) == box
    assert shared.pid == before
    await successor.remove("uid-1", 0)
    assert shared.left() == []
    eventually(lambda: not Path(f"/proc/{before}/ns/mnt").exists(), what="the end of the pause process")


async def test_its_end_is_told_ends_the_containers_and_leaves_no_sandbox(
    shared: Shared, runtime: ContainerRuntime
) -> None:
    box = await shared.sandboxes.create(shared.asked)
    victim = await shared.starts(box, "app", "sleep", "600")
    os.kill(shared.pid, signal.SIGKILL)
    assert await asyncio.wait_for(shared.sandboxes.lost.get(), 20) == ("uid-1", 0)
    end = await asyncio.wait_for(runtime.exits.get(), 20)
    assert (end.id, end.code) == (victim.id, 137)
    assert await shared.successor().list() == []
    assert await shared.successor().half_made() == [("uid-1", 0)]
    # A node that was told nothing of it (the agent was killed) makes it whole again under the same name.
    again = await shared.successor().create(shared.asked)
    assert again == box
    assert (await ran(runtime, shared.node.request("true", name="again", sandbox=again))).code == 0


async def test_an_end_while_no_agent_ran_is_told_to_the_next(shared: Shared) -> None:
    box = await shared.sandboxes.create(shared.asked)
    os.kill(shared.pid, signal.SIGKILL)
    successor = shared.successor()
    successor.watch(box)
    assert await asyncio.wait_for(successor.lost.get(), 20) == ("uid-1", 0)


async def test_a_removed_sandbox_is_not_lost(shared: Shared) -> None:
    await shared.sandboxes.create(shared.asked)
    await shared.sandboxes.remove("uid-1", 0)
    assert shared.left() == []
    assert shared.sandboxes.lost.empty()


async def test_what_was_begun_by_an_agent_that_was_killed_is_done_anew_and_leaves_nothing(shared: Shared) -> None:
    box = await shared.sandboxes.create(shared.asked)
    assert box.pid is not None
    (box.pid.parent / "made").unlink()
    stray = shared.pid
    successor = shared.successor()
    assert await successor.create(shared.asked) == box
    assert shared.pid != stray
    eventually(lambda: not Path(f"/proc/{stray}/ns/mnt").exists(), what="the end of the first one")


async def test_without_its_program_the_sandbox_says_what_to_install(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pause, "SEARCH_PATH", "/nowhere")
    with pytest.raises(SandboxFailure, match="need catatonit: install the package catatonit"):
        await shared.sandboxes.create(shared.asked)
    with pytest.raises(SandboxFailure, match="runs no pods whose containers share"):
        await Sandboxes(shared.node.run, None).create(replace(shared.asked, attempt=1))

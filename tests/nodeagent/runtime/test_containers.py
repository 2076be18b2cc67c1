"""Containers end to end: a real OCI runtime, conmon, overlay and cgroups."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.runtime import logs, settling
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.containers import ContainerRuntime, Deadlines
from nodeagent.runtime.detection import RuntimeNotReady
from nodeagent.runtime.rotation import LogRotator
from nodeagent.types import Mount, Resources, RuntimeFailure, Security
from tests.support.waiting import eventually

from .conftest import Node, ended, ran


async def test_exit_code_log_and_time_are_told(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    before = time.time()
    end = await ran(runtime, request)
    assert (end.code, end.oom) == (7, False)
    assert before - 1 <= end.finished_at <= time.time() + 1
    assert sorted(node.log(request).split()) == ["err", "out"]


async def test_a_signal_ends_with_128_plus_its_number(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done")
    pid = await runtime.create(request)
    assert runtime.pid(request.id) == pid
    await runtime.start(request.id)
    await _written(node, request.name)
    await runtime.signal(request.id, signal.SIGUSR1)
    assert (await ended(runtime, request)).code == 3
    await runtime.signal(request.id, signal.SIGUSR1)
    assert runtime.pid(request.id) is None


async def test_kill_ends_every_process_of_the_container(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait")
    await runtime.create(request)
    await runtime.start(request.id)
    await runtime.kill(request.id)
    assert (await ended(runtime, request)).code == 137
    assert Cgroups.detect().processes(request.cgroup) == set()


async def test_without_a_pid_namespace_of_its_own_a_containers_end_takes_along_whoever_it_left(
    node: Node, runtime: ContainerRuntime
) -> None:
    left = "setsid sleep 1000 & readlink /proc/self/ns/pid; exit 4"
    request = node.request("/bin/sh", "-c", left, host_pid=True)
    assert (await ran(runtime, request)).code == 4
    assert node.log(request).strip() == os.readlink("/proc/self/ns/pid")
    assert Cgroups.detect().processes(request.cgroup) == set()


async def test_nothing_is_left_after_remove_but_the_log(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sh", "-c", "echo kept; sleep 1000")
    await runtime.create(request)
    await runtime.start(request.id)
    await _written(node, request.name)
    await runtime.remove(request.id)
    await runtime.remove(request.id)
    assert [str(p) for p in node.run.rglob("*") if request.id in str(p)] == []
    assert [str(p) for p in node.state.rglob("*") if request.id in str(p)] == []
    assert request.id not in Path("/proc/self/mountinfo").read_text()
    assert not any(map(os.path.exists, Cgroups.detect().paths(request.cgroup)))
    assert not any(str(node.run) in line for line in _command_lines())
    assert node.log(request) == "kept\n"


@pytest.mark.parametrize("command", ["/bin/no-such-program", "no-such-program", "/etc/passwd", "/etc"])
async def test_a_command_that_cannot_run_is_run_container_error(
    node: Node, runtime: ContainerRuntime, command: str
) -> None:
    request = node.request(command)
    with pytest.raises(RuntimeFailure) as caught:
        await ran(runtime, request)
    assert caught.value.reason == "RunContainerError", caught.value.message
    await runtime.remove(request.id)


async def test_anything_else_that_is_refused_is_create_container_error(node: Node, runtime: ContainerRuntime) -> None:
    missing = Mount(Path("/no/such/source"), "/data")
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.create(node.request("/bin/true", mounts=(missing,)))
    assert caught.value.reason == "CreateContainerError"
    assert "/no/such/source" in caught.value.message or "/data" in caught.value.message
    assert not list((node.run / "containers").iterdir())


async def test_create_again_finds_the_container(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sleep", "1000")
    assert await runtime.create(request) == await runtime.create(request)
    await runtime.start(request.id)
    await runtime.start(request.id)
    await runtime.remove(request.id)


async def test_an_agent_that_comes_back_finds_what_ran_and_what_ended(node: Node, runtime: ContainerRuntime) -> None:
    created, running = node.request("/bin/true", name="created"), node.request("/bin/sleep", "1000", name="running")
    over = node.request("/bin/sh", "-c", "sleep 0.1; exit 9", name="over")
    pids = [await runtime.create(item) for item in (created, running, over)]
    await runtime.start(running.id)
    await runtime.start(over.id)
    await runtime.close()
    await _exists(node.run / "exits" / over.id)

    back = await node.open()
    found = {item.name: item for item in await back.list()}
    assert {name: item.state for name, item in found.items()} == {
        "created": "created", "running": "running", "over": "stopped"}  # fmt: skip
    assert (found["created"].pid, found["running"].pid, found["over"].pid) == (pids[0], pids[1], None)
    assert found["over"].exit is not None
    assert found["over"].exit.code == 9
    assert (await ended(back, over)).code == 9
    await back.start(created.id)
    assert (await ended(back, created)).code == 0
    await back.kill(running.id)
    assert (await ended(back, running)).code == 137


async def test_a_container_that_ends_while_the_agent_comes_back_keeps_its_code(
    node: Node, runtime: ContainerRuntime
) -> None:
    """The runtime says stopped and conmon has not written the end yet: nobody may call that unknown."""
    request = node.request("/bin/sh", "-c", "exit 3")
    pid = await runtime.create(request)
    conmon = int((node.run / "containers" / request.id / "conmon.pid").read_text())
    os.kill(conmon, signal.SIGSTOP)
    try:
        await runtime.start(request.id)
        await _zombie(pid)
        await runtime.close()
        back = await node.open()
        (found,) = await back.list()
        assert (found.state, found.conmon_alive, found.exit) == ("running", True, None)
    finally:
        os.kill(conmon, signal.SIGCONT)
    assert (await ended(back, request)).code == 3


async def test_a_container_whose_conmon_was_killed_is_killed_and_reported(
    node: Node, runtime: ContainerRuntime
) -> None:
    request = node.request("/bin/sleep", "1000")
    await runtime.create(request)
    await runtime.start(request.id)
    os.kill(int((node.run / "containers" / request.id / "conmon.pid").read_text()), signal.SIGKILL)
    end = await ended(runtime, request)
    assert end.code is None
    assert Cgroups.detect().processes(request.cgroup) == set()


async def test_a_conmon_leaves_the_agents_cgroup_if_need_be_by_the_next_agent(
    node: Node, runtime: ContainerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = node.request("/bin/sleep", "1000")
    await runtime.create(request)
    await runtime.start(request.id)
    conmon = int((node.run / "containers" / request.id / "conmon.pid").read_text())
    where = f"{node.cgroup}/conmon"
    assert conmon not in runtime.cgroups.processes(where)
    await runtime.close()
    monkeypatch.setattr(settling, "_AFTER", 0.1)
    later = await node.open()
    assert [found.id for found in await later.list()] == [request.id]
    await asyncio.to_thread(eventually, lambda: conmon in later.cgroups.processes(where), what="the conmon to be moved")


async def test_a_conmon_that_died_while_no_agent_ran_is_noticed(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sleep", "1000")
    await runtime.create(request)
    await runtime.start(request.id)
    await runtime.close()
    os.kill(int((node.run / "containers" / request.id / "conmon.pid").read_text()), signal.SIGKILL)
    back = await node.open()
    found = [(item.state, item.conmon_alive) for item in await back.list()]
    assert found in ([("unknown", False)], [("running", True)])
    assert (await ended(back, request)).code is None


async def test_a_runtime_that_hangs_is_given_up_at_the_deadline(node: Node) -> None:
    runtime = await node.open(deadlines=Deadlines(create=20))
    hanging = node.run / "hang"
    hanging.write_text("#!/bin/sh\nexec sleep 54321.5\n")
    hanging.chmod(0o755)
    real = runtime.programs
    short = replace(real, runtime=str(hanging))
    runtime._launcher.close()  # with the sealed copy of crun that it would run
    runtime._launcher._programs, runtime._launcher._deadline = short, 0.5
    request = node.request("/bin/true")
    with pytest.raises(RuntimeFailure, match=r"within 0\.5 s"):
        await runtime.create(request)
    assert not (node.run / "containers" / request.id).exists()
    assert not any("54321.5" in line for line in _command_lines())


async def test_out_of_memory_is_told(node: Node, runtime: ContainerRuntime) -> None:
    eat = "import sys; data = bytearray(300 << 20); print(len(data))"
    request = node.request("/usr/bin/python3", "-S", "-c", eat, resources=Resources(memory_limit=64 << 20))
    end = await ran(runtime, request)
    assert (end.code, end.oom) == (137, True)
    assert re.fullmatch(r"memory limit 64Mi, peak 6[34].*", end.message)


@pytest.mark.parametrize("own", [3, 0])
async def test_a_child_that_ran_out_of_memory_is_told_where_the_container_ends_by_itself(
    node: Node, runtime: ContainerRuntime, own: int
) -> None:
    eat = f"/usr/bin/python3 -S -c 'data = bytearray(300 << 20)'; printf sad >/dev/termination-log; exit {own}"
    request = node.request("/bin/sh", "-c", eat, resources=Resources(memory_limit=64 << 20))
    end = await ran(runtime, request)
    # Under cgroup v2 the kernel ends all of the container at once, before it can say a word.
    code, said = (own, "sad\n") if runtime.cgroups.version == 1 else (137, "")
    assert (end.code, end.oom) == (code, True)
    assert end.message.startswith(f"{said}memory limit 64Mi, peak ")


async def test_the_termination_message_is_read(node: Node, runtime: ContainerRuntime) -> None:
    end = await ran(runtime, node.request("/bin/sh", "-c", "printf why > /dev/termination-log; exit 1"))
    assert (end.code, end.message) == (1, "why")
    long = node.request("/bin/sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x > /tmp/message; echo end >>/tmp/message",
                        name="long", termination_message_path="/tmp/message")  # fmt: skip
    assert (await ran(runtime, long)).message == "x" * 4092 + "end\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo last words; exit 1", "last words\n"),
        ("echo last words; exit 0", ""),
        ("echo last words; printf why >/dev/termination-log; exit 1", "why"),
        ("seq 1 100; exit 1", "".join(f"{number}\n" for number in range(21, 101))),
        ("head -c 9000 /dev/zero | tr '\\0' x; exit 1", "x" * 2048),
    ],
)
async def test_who_fails_without_a_message_has_the_end_of_its_log_where_asked(
    node: Node, runtime: ContainerRuntime, command: str, message: str
) -> None:
    end = await ran(runtime, node.request("/bin/sh", "-c", command, log_is_message=True))
    assert end.message == message


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_working_directory_is_made_where_there_is_none(
    node: Node, runtime: ContainerRuntime, read_only: bool
) -> None:
    nobody = Security(uid=1000, read_only_root=read_only)
    script = "pwd; stat -c '%u:%g %a' . .."
    request = node.request("/bin/sh", "-c", script, working_dir="/made/for it", security=nobody)
    assert (await ran(runtime, request)).code == 0
    assert node.log(request).splitlines() == ["/made/for it", "0:0 755", "0:0 755"]
    assert not Path("/made").exists()


@pytest.mark.parametrize("place", ["relative", "/etc/passwd"])
async def test_a_working_directory_that_cannot_be_is_refused_by_its_name(
    node: Node, runtime: ContainerRuntime, place: str
) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await ran(runtime, node.request("/bin/pwd", working_dir=place))
    assert caught.value.reason == "CreateContainerError"
    assert place in caught.value.message


async def test_the_log_is_followed_across_rotation(node: Node, runtime: ContainerRuntime) -> None:
    script = "for i in 1 2 3; do echo a$i; done; read x < /tmp/go; for i in 1 2 3; do echo b$i; done"
    go = node.state / "go"
    os.mkfifo(go)
    request = node.request("/bin/sh", "-c", script, mounts=(Mount(go, "/tmp/go"),))
    await runtime.create(request)
    await runtime.start(request.id)
    log = runtime.log_path(request.id)
    assert log is not None
    over = False
    read: list[bytes] = []

    async def follow() -> None:
        async for chunk in logs.read(log, logs.LogOptions(follow=True), ended=lambda: over, events=runtime._events):
            read.append(chunk)

    task = asyncio.create_task(follow())
    while b"a3" not in b"".join(read):
        await asyncio.sleep(0.01)
    log.rename(log.with_name("0.log.1"))
    runtime.reopen_log(request.id)
    await _exists(log)
    await asyncio.to_thread(go.write_text, "go\n")
    await ended(runtime, request)
    over = True
    await asyncio.wait_for(task, 10)
    assert b"".join(read).split() == [b"a1", b"a2", b"a3", b"b1", b"b2", b"b3"]


async def test_a_full_log_of_a_living_container_is_rotated(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sh", "-c", "echo before; sleep 1000")
    await runtime.create(request)
    await runtime.start(request.id)
    await _written(node, request.name)
    LogRotator(runtime.living_logs, runtime.reopen_log, limit=1).round(runtime.living_logs())
    log = runtime.log_path(request.id)
    assert log is not None
    await _exists(log)
    assert [path.name for path in logs.files(log)] == ["0.log.1", "0.log"]


async def test_starting_what_an_earlier_agent_started_is_no_failure(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/sleep", "1000")
    await runtime.create(request)
    await runtime.start(request.id)
    (node.run / "containers" / request.id / "started").unlink()
    await runtime.start(request.id)
    assert runtime.pid(request.id) is not None


async def test_a_cancelled_creation_leaves_nothing(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/true")
    task = asyncio.create_task(runtime.create(request))
    await _exists(node.run / "containers" / request.id / "config.json")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (node.run / "containers" / request.id).exists()
    assert not any(str(node.run) in line for line in _command_lines())


async def test_a_missing_program_is_named_with_its_package(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nodeagent.runtime.detection.SEARCH_PATH", str(tmp_path))
    with pytest.raises(RuntimeNotReady, match="conmon is not installed: install the package conmon"):
        await node.open()


def _command_lines() -> list[str]:
    """Those of the whole machine, where other tests may run containers of the same names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:
            continue
    return found


async def _written(node: Node, name: str) -> None:
    async with asyncio.timeout(20):
        while not any(path.stat().st_size for path in node.state.glob(f"logs/*/{name}/*.log")):
            await asyncio.sleep(0.01)


async def _zombie(pid: int) -> None:
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            await asyncio.sleep(0.01)


async def _exists(path: Path) -> None:
    """Looks at every turn of the event loop: what is made and removed by turns of it cannot be missed."""
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0)

"""Where a pod's start went: each step from its first try to its first success, and nothing of what comes later."""

from __future__ import annotations

import json

import pytest

from nodeagent.pods import codec
from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.recovery import Reality, rebuilt
from nodeagent.pods.startup import steps
from nodeagent.types import ContainerFound
from podplane.v1.pod_pb2 import Pod
from tests.nodeagent.pods.world import World, make_pod


def shown(world: World) -> dict[str, tuple[int, int | None]]:
    """Step, with its container -> milliseconds to its beginning, and those that it took."""
    return {
        f"{one.step} {one.container}".rstrip(): (
            one.afterMicroseconds // 1000,
            one.tookMicroseconds // 1000 if one.HasField("tookMicroseconds") else None,
        )
        for one in steps(world.state)
    }


def start(world: World, milliseconds: int = 10) -> None:
    """Every effect takes so long, one after the other."""
    if not world.state.admitted:
        world.post(did.PodAdmitted(world.now))
    while world.pending:
        world.now += milliseconds / 1000
        world.perform(world.pending[0])


def test_every_step_has_its_beginning_and_its_length() -> None:
    world = World(make_pod(init=1))
    start(world)
    world.now += 1
    world.exit("i0", 0)
    start(world)
    assert shown(world) == {
        "sandbox": (0, 40),  # the address, then what else came first in this world's one row, then the sandbox
        "volumes": (0, 20),
        "pull i0": (0, 30),
        "create i0": (40, 10),
        "start i0": (50, 10),
        "pull a0": (1060, 10),
        "create a0": (1070, 10),
        "start a0": (1080, 10),
    }


def test_what_is_under_way_has_a_beginning_only() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    assert shown(world) == {"sandbox": (0, None), "volumes": (0, None), "pull a0": (0, None)}


def test_tries_that_failed_and_the_waits_between_them_count() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, do.PullImage))
    world.pending.clear()
    world.post(did.ImageFailed(world.now, "a0", "ErrImagePull", "no such image"))
    world.pass_time(10)
    assert shown(world)["pull a0"] == (0, 10_000)


def test_a_restart_is_no_part_of_the_start() -> None:
    world = World(make_pod())
    start(world)
    known = shown(world)
    world.exit("a0", 1)
    world.pass_time(30)
    assert world.alive == {"a0": 1}
    assert shown(world) == known


def _probed() -> Pod:
    pod = make_pod()
    pod.spec.containers[0].startupProbe.tcpSocket.port.number_value = 1
    pod.spec.containers[0].readinessProbe.tcpSocket.port.number_value = 1
    return pod


def test_probes_take_until_the_container_is_ready_for_the_first_time() -> None:
    world = World(_probed())
    start(world)
    began = sum(took or 0 for took in shown(world)["start a0"])
    assert shown(world)["probes a0"] == (began, None)
    for seconds, probe in ((2, "startup"), (1, "readiness")):
        world.now += seconds
        world.post(did.ProbePassed(world.now, "a0", 0, probe))
    assert shown(world)["probes a0"] == (began, 3000)
    world.post(did.ProbeFailed(world.now, "a0", 0, "readiness", "ill", True))
    world.now += 5
    world.post(did.ProbePassed(world.now, "a0", 0, "readiness"))
    assert shown(world)["probes a0"] == (began, 3000)


def test_a_post_start_hook_is_a_step_and_a_pre_stop_is_none() -> None:
    pod = make_pod()
    pod.spec.containers[0].lifecycle.postStart.exec.command.append("true")
    pod.spec.containers[0].lifecycle.preStop.exec.command.append("true")
    world = World(pod)
    start(world)
    known = shown(world)
    assert known["postStart a0"][1] == 10
    world.post(did.DeletionRequested(world.now, 30))
    world.settle()
    assert [effect.hook for effect in world.issued(do.RunHook)] == ["postStart", "preStop"]
    assert shown(world) == known


def test_a_clock_that_was_set_makes_no_step_longer() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.now += 3600
    world.post(did.ClockStepped(world.now, 3600))
    world.now += 0.005
    world.settle()
    assert shown(world)["pull a0"] == (0, 5)


def test_the_next_agent_goes_on_counting() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.state = codec.decode(json.loads(json.dumps(codec.encode(world.state))), world.state.pod)
    world.pending.clear()
    world.now += 2
    world.post(did.AgentRestarted(world.now, rebooted=False, sandbox=False))
    world.settle()
    assert shown(world)["sandbox"] == (0, 2000)


def _crashed(world: World) -> None:
    """The app ends and is started anew."""
    world.exit("a0", 1)
    world.pass_time(30)
    assert world.alive == {"a0": 1}


def _found(world: World, state: str) -> dict[tuple[str, int], ContainerFound]:
    started_at = 0.0 if state == "created" else world.now
    return {("a0", 0): ContainerFound("id", "uid-1", "a0", 0, state, 42, True, None, started_at)}


def test_a_start_that_another_agent_did_not_note_is_not_made_up_of_restarts() -> None:
    noted = World(_probed())
    start(noted)
    older = {name: value for name, value in codec.encode(noted.state).items() if name != "steps"}
    running = _found(noted, "running")
    lost = rebuilt(noted.state.pod, Reality(containers={"uid-1": [*running.values()]}))
    for state in (codec.decode(older, noted.state.pod), lost):
        world = World(noted.state.pod)
        world.state, world.alive, world.now = state, {"a0": 0}, noted.now + 3600
        world.post(did.AgentRestarted(world.now, rebooted=False, sandbox=True, instances=running))
        world.settle()
        world.post(did.ProbePassed(world.now, "a0", 0, "startup"))
        world.post(did.ProbePassed(world.now, "a0", 0, "readiness"))
        _crashed(world)
        assert shown(world) == {}


@pytest.mark.parametrize(
    ("held", "state", "expected"),
    [
        (do.CreateContainer, "created", {"create a0": (0, 2000), "start a0": (2000, 20)}),
        (do.StartContainer, "running", {"create a0": (0, 0), "start a0": (0, 500), "probes a0": (500, None)}),
        (do.StartContainer, "stopped", {"create a0": (0, 0), "start a0": (0, 500)}),
    ],
)
def test_a_step_ends_though_its_agent_has_not_seen_that(
    held: type[do.Effect], state: str, expected: dict[str, tuple[int, int | None]]
) -> None:
    world = World(_probed())
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, held))
    world.pending.clear()
    world.now += 0.5
    instances = _found(world, state)
    world.now += 1.5
    world.post(did.AgentRestarted(world.now, rebooted=False, sandbox=True, instances=instances))
    start(world)
    assert {key: value for key, value in shown(world).items() if key in expected} == expected

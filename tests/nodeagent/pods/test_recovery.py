"""What is known of a pod after a restart: by journal, by reality where the journal is lost, else not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.paths import Paths
from nodeagent.pods import effects as do
from nodeagent.pods.codec import encode
from nodeagent.pods.events import AgentRestarted
from nodeagent.pods.kept import read_specs, spec_path
from nodeagent.pods.machine import step
from nodeagent.pods.recovery import Reality, _untold, states
from nodeagent.types import ContainerFound, Sandbox
from podplane.files import replace
from podplane.v1.pod_pb2 import Pod
from tests.nodeagent.pods.world import World, make_pod


def reality(*found: ContainerFound) -> Reality:
    box = Sandbox("uid-1", 2, "10.1.0.9", None, None, None, None)
    return Reality(sandboxes={"uid-1": [box]}, containers={"uid-1": list(found)})


def test_a_pod_of_the_journal_is_as_it_was_written_down() -> None:
    world = World(make_pod())
    world.run()
    (state,) = states({"uid-1": world.state.pod}, {"uid-1": encode(world.state)}, Reality())
    assert encode(state) == encode(world.state)


def test_a_pod_whose_journal_is_lost_is_rebuilt_from_what_runs_and_restarts_nothing() -> None:
    pod = make_pod(init=1)
    running = ContainerFound("uid-1_a0_3", "uid-1", "a0", 3, "running", 9, True, None)
    world = reality(running)
    (state,) = states({"uid-1": pod}, {}, world)
    assert (state.address, state.sandbox.attempt) == ("10.1.0.9", 2)
    effects = step(state, AgentRestarted(5.0, False, True, world.instances("uid-1")))
    assert [type(effect).__name__ for effect in effects] == ["PrepareVolumes"]
    assert state.container("a0").restarts == 3


def test_an_instance_that_was_written_down_in_what_is_torn_off_is_kept() -> None:
    world = World(make_pod(init=1))
    world.run()
    world.exit("i0", 0)
    world.settle()
    world.exit("a0", 3)
    record = encode(world.state)  # of attempt 0, which has ended
    record["sandbox"]["attempt"] = 2
    running = ContainerFound("uid-1_a0_1", "uid-1", "a0", 1, "running", 9, True, None, 77.0)
    (state,) = states({"uid-1": world.state.pod}, {"uid-1": record}, reality(running))
    effects = step(state, AgentRestarted(world.now, False, True, reality(running).instances("uid-1")))
    assert [type(effect).__name__ for effect in effects] == ["PrepareVolumes"]
    container = state.container("a0")
    assert (container.attempt, container.restarts, container.started_at, container.pid) == (1, 1, 77.0, 9)
    assert container.last is not None
    assert container.last.code == 3


def test_what_runs_is_kept_where_only_the_beginning_of_the_pod_was_written_down() -> None:
    world = World(make_pod(init=1))
    world.run()
    record = {**encode(world.state), "init": [], "apps": []}
    record["sandbox"] = {"stage": "absent", "attempt": 2}
    running = ContainerFound("uid-1_a0_0", "uid-1", "a0", 0, "running", 9, True, None, 77.0)
    (state,) = states({"uid-1": world.state.pod}, {"uid-1": record}, reality(running))
    effects = step(state, AgentRestarted(world.now, False, True, reality(running).instances("uid-1")))
    assert [type(effect).__name__ for effect in effects] == ["PrepareVolumes"]
    assert (state.container("a0").stage, state.container("a0").restarts) == ("running", 0)


@pytest.mark.parametrize("said", ["image", "deletion"])
def test_what_was_kept_of_a_spec_and_not_yet_journaled_is_not_lost(said: str) -> None:
    world = World(make_pod())
    world.run()
    record = encode(world.state)
    pod = Pod()
    pod.CopyFrom(world.state.pod)
    if said == "image":
        pod.spec.containers[0].image = "newer"
    else:
        pod.metadata.deletionTimestamp.seconds = 1
        pod.metadata.deletionGracePeriodSeconds = 7
    (state,) = states({"uid-1": pod}, {"uid-1": record}, Reality())
    running = ContainerFound("uid-1_a0_0", "uid-1", "a0", 0, "running", 9, True, None)
    effects = step(state, AgentRestarted(5.0, False, True, {("a0", 0): running}))
    assert not any(isinstance(effect, do.SignalContainer) for effect in effects)
    effects = [effect for event in _untold(state, 5.0) for effect in step(state, event)]
    assert any(isinstance(effect, do.Tell) and effect.reason == "Killing" for effect in effects)
    assert state.deleted == (said == "deletion")


def test_a_spec_without_journal_and_trace_is_left_to_the_control_plane() -> None:
    assert states({"uid-1": make_pod()}, {}, Reality()) == []


def test_a_kept_spec_that_is_torn_is_left_out(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    paths.make()
    pod = make_pod()
    replace(spec_path(paths, "uid-1"), pod.SerializeToString())
    replace(spec_path(paths, "uid-2"), pod.SerializeToString()[:7])
    replace(spec_path(paths, "uid-3"), b"")
    assert read_specs(paths) == {"uid-1": pod}

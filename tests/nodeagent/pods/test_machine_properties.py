"""Whatever happens to a pod, in whatever order: L4 to L6 hold, and it can always be ended."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.machine import wake_at
from nodeagent.types import ContainerExit, ContainerFound
from tests.nodeagent.pods.world import World, make_pod


class PodLife(RuleBasedStateMachine):
    """Effects succeed, fail or wait; containers end; time passes; the agent dies; the pod is deleted."""

    @initialize(
        apps=st.integers(1, 2),
        init=st.integers(0, 2),
        policy=st.sampled_from(["Always", "OnFailure", "Never"]),
        sidecar=st.sampled_from([None, 0, 1]),
        hooks=st.lists(st.sampled_from(["postStart", "preStop"]), unique=True),
    )
    def begin(self, apps: int, init: int, policy: str, sidecar: int | None, hooks: list[str]) -> None:
        pod = make_pod(apps=apps, init=init, policy=policy)
        if sidecar is not None and sidecar < init:
            pod.spec.initContainers[sidecar].restartPolicy = "Always"
        for name in hooks:
            getattr(pod.spec.containers[0].lifecycle, name).exec.command.append("true")
        self.world = World(pod)
        self.world.post(did.PodAdmitted(self.world.now))
        self.recorded: dict[tuple[str, int], int] = {}
        self.finals: set[str] = set()

    @precondition(lambda self: bool(self.world.pending))
    @rule(choice=st.integers(0, 20))
    def an_effect_is_done(self, choice: int) -> None:
        self.world.perform(self.world.pending[choice % len(self.world.pending)])

    @precondition(lambda self: bool(self.world.pending))
    @rule()
    def all_effects_are_done(self) -> None:
        self.world.settle()

    @precondition(lambda self: bool(self.world.pending))
    @rule(choice=st.integers(0, 20))
    def an_effect_fails(self, choice: int) -> None:
        effect = self.world.pending[choice % len(self.world.pending)]
        event = self._failure(effect)
        if event is not None:
            self.world.pending.remove(effect)
            self.world.post(event)

    def _failure(self, effect: do.Effect) -> did.Event | None:
        at = self.world.now
        match effect:
            case do.CreateSandbox(attempt=attempt):
                return did.SandboxFailed(at, attempt, "no")
            case do.RemoveSandbox():
                return did.CleanupFailed(at, "sandbox")
            case do.PrepareVolumes():
                return did.VolumesFailed(at, "FailedMount", "no")
            case do.RemoveVolumes():
                return did.CleanupFailed(at, "volumes")
            case do.PullImage(container=name):
                return did.ImageFailed(at, name, "ErrImagePull", "no")
            case do.CreateContainer(container=name, attempt=attempt):
                return did.ContainerRefused(at, name, attempt, "CreateContainerError", "no")
            case do.StartContainer(container=name, attempt=attempt):
                return did.ContainerStartFailed(at, name, attempt, "no")
            case do.RunHook(container=name, attempt=attempt, hook=hook):
                return did.HookEnded(at, name, attempt, hook, "no")
            case do.RemoveContainer(container=name):
                return did.CleanupFailed(at, "container", name)
        return None

    @precondition(lambda self: bool(self.world.alive))
    @rule(choice=st.integers(0, 5), code=st.sampled_from([0, 1, 137]), oom=st.booleans())
    def a_container_ends(self, choice: int, code: int, oom: bool) -> None:
        name = sorted(self.world.alive)[choice % len(self.world.alive)]
        self.world.exit(name, code, oom=oom and code == 137)

    @precondition(lambda self: any(container.ended for container in self.world.state.containers))
    @rule(code=st.integers(0, 2))
    def an_exit_is_told_twice(self, code: int) -> None:
        container = next(container for container in self.world.state.containers if container.ended)
        assert container.ended is not None
        if self.world.alive.get(container.name) != container.ended.attempt:
            self.world.post(did.ContainerExited(self.world.now, container.name, container.ended.attempt, code))

    @rule(seconds=st.sampled_from([0.5, 2.0, 15.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.post(did.TimePassed(self.world.now))

    @precondition(lambda self: not self.world.state.gone)
    @rule()
    def the_sandbox_is_lost(self) -> None:
        self.world.post(did.SandboxLost(self.world.now, self.world.state.sandbox.attempt))

    @precondition(lambda self: len(self.world.statuses) > 15 and not self.world.state.gone)
    @rule()
    def it_is_evicted(self) -> None:
        self.world.post(did.PodEvicted(self.world.now, "the node is low on memory"))

    @precondition(lambda self: not self.world.state.gone)
    @rule(ends=st.booleans())
    def the_agent_is_killed_and_comes_back(self, ends: bool) -> None:
        """`ends`: what ran has exited 1 meanwhile."""
        world = self.world
        world.pending.clear()
        instances = {(name, attempt): _found(name, attempt, ends) for name, attempt in world.alive.items()}
        if ends:
            world.alive.clear()
        world.post(did.AgentRestarted(world.now, False, world.state.sandbox.stage == "ready", instances))
        world.alive = {name: attempt for name, attempt in world.alive.items() if world.state.container(name).live}

    @precondition(lambda self: len(self.world.statuses) > 25)  # most lives shall be lived first
    @rule(grace=st.sampled_from([0.0, 5.0, 30.0]))
    def it_is_deleted(self, grace: float) -> None:
        if not self.world.state.gone:
            self.world.post(did.DeletionRequested(self.world.now, grace))

    @invariant()
    def every_exit_is_recorded_once(self) -> None:
        for container in self.world.state.containers:
            assert container.exits <= container.attempt + 1
            for ended in (container.ended, container.last):
                if ended is not None:
                    known = self.recorded.setdefault((container.name, ended.attempt), ended.code)
                    assert known == ended.code

    @invariant()
    def a_terminal_phase_never_leaves(self) -> None:
        if self.world.state.final:
            self.finals.add(self.world.state.final)
        assert len(self.finals) <= 1
        if self.finals:
            assert self.world.status.phase in self.finals

    @invariant()
    def nothing_is_restarted_without_a_reason(self) -> None:
        state = self.world.state
        policy = state.restart_policy
        for container in state.apps:
            if policy == "Never":
                assert container.exits <= 1
            if container.restarts and policy == "OnFailure" and container.last is not None:
                assert container.last.code != 0

    @invariant()
    def something_is_in_flight_or_due_or_it_rests(self) -> None:
        world = self.world
        resting = world.state.gone or bool(world.state.final) or bool(world.alive)
        assert resting or world.pending or wake_at(world.state, world.now) is not None

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        if not world.state.gone:
            world.post(did.DeletionRequested(world.now, 0))
            world.settle()
            world.pass_time(60)
        assert world.state.gone
        assert not world.alive
        assert not world.state.address


def _found(name: str, attempt: int, ended: bool) -> ContainerFound:
    id_ = f"uid-1_{name}_{attempt}"
    end = ContainerExit(id_, 1, False, 1_000_000.0) if ended else None
    return ContainerFound(id_, "uid-1", name, attempt, "stopped" if ended else "running", 1, True, end)


PodLife.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPodLife = PodLife.TestCase

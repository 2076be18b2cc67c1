"""Does the effects of one pod: the one impure place between the machine and the node.

Each method does one effect and returns the event that tells its outcome. Expected failures (a runtime's refusal, a
missing object, a deadline) become events; anything else is a bug and is raised, which ends the agent with its reason.
Never decides what is done next. Effects on one container are done in the order in which they were issued.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodeagent.pods import compose, failpoints, hooking, netfiles, requests
from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.addresses import PoolExhausted
from nodeagent.pods.disk import RETRY
from nodeagent.pods.hooks import POST_START
from nodeagent.pods.state import PodState
from nodeagent.pods.tools import Tools
from nodeagent.runtime.environment import ConfigFailure
from nodeagent.runtime.image import HOST, ImageFailure
from nodeagent.runtime.volumes import VolumeFailure
from nodeagent.sandbox.sandboxes import SandboxFailure
from nodeagent.types import RuntimeFailure, Sandbox

log = logging.getLogger(__name__)

Outcome = did.Event | None


class Performer:
    """Of one pod. `sandbox` and the volumes' paths are known once they are made, or found again.

    `post`: takes events in between; an effect's outcome is returned.
    """

    def __init__(self, tools: Tools, state: PodState, post: Callable[[did.Event], None]) -> None:
        self._tools = tools
        self._state = state
        self._post = post
        self.sandbox: Sandbox | None = None
        self._volumes: Mapping[str, Path] | None = None
        self._volumes_turn = asyncio.Lock()
        self._changes = 0
        self._in_order: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._methods: dict[type[do.Effect], tuple[str, Callable[[Any], Awaitable[Outcome]]]] = {
            do.TakeAddress: ("take-address", self._take_address),
            do.CreateSandbox: ("create-sandbox", self._create_sandbox),
            do.RemoveSandbox: ("remove-sandbox", self._remove_sandbox),
            do.ReleaseAddress: ("release-address", self._release_address),
            do.PrepareVolumes: ("prepare-volumes", self._prepare_volumes),
            do.RemoveVolumes: ("remove-volumes", self._remove_volumes),
            do.PullImage: ("pull-image", self._pull_image),
            do.CreateContainer: ("create-container", self._create_container),
            do.StartContainer: ("start-container", self._start_container),
            do.RunHook: ("run-hook", self._run_hook),
            do.SignalContainer: ("signal-container", self._signal_container),
            do.KillContainer: ("kill-container", self._kill_container),
            do.RemoveContainer: ("remove-container", self._remove_container),
        }

    async def perform(self, effect: do.Effect) -> Outcome:
        """Do it; None where nobody waits for the outcome."""
        name, method = self._methods[type(effect)]
        failpoints.hit(f"{name}:before")
        outcome = await method(effect)
        failpoints.hit(f"{name}:after")
        return outcome

    @property
    def _now(self) -> float:
        return self._tools.clock.now()

    def _id(self, name: str, attempt: int) -> str:
        return f"{self._state.uid}_{name}_{attempt}"

    # ── sandbox and volumes ──────────────────────────────────────────────────────────────────────────────────

    async def _take_address(self, _effect: do.TakeAddress) -> Outcome:
        problem = self._tools.network_problem()
        try:
            if problem:
                raise PoolExhausted(f"network is not ready: {problem}")
            return did.AddressTaken(self._now, self._tools.addresses.take(self._state.uid))
        except PoolExhausted as error:
            return did.SandboxFailed(self._now, self._state.sandbox.attempt, str(error))

    async def _release_address(self, _effect: do.ReleaseAddress) -> Outcome:
        self._tools.addresses.give_back(self._state.uid)
        return None

    async def _create_sandbox(self, effect: do.CreateSandbox) -> Outcome:
        pod, naming = self._state.pod, self._tools.naming
        try:
            hostname, shared = netfiles.hostname(pod, naming), self._cgroup()
            request = requests.sandbox(pod, effect.attempt, hostname, effect.address, shared)
            async with asyncio.timeout(self._tools.deadlines.sandbox):
                # Beside the network: the runtime would make the same directories later, one after the other.
                cgroup = asyncio.create_task(asyncio.to_thread(self._make_cgroup, shared))
                try:
                    self.sandbox = await self._tools.sandboxes.create(request)
                finally:
                    await cgroup
                # In memory, and done before a thread would have begun.
                omitted = netfiles.write(self._tools.paths, pod, effect.address, naming)
        except (SandboxFailure, netfiles.NameFailure, OSError) as error:
            return did.SandboxFailed(self._now, effect.attempt, str(error) or "it took too long")
        for words in omitted:
            self._tools.reports.event(pod, do.Tell("Warning", "DNSConfigForming", words))
        return did.SandboxReady(self._now, effect.attempt)

    def _cgroup(self) -> str:
        return requests.pod_cgroup(self._tools.facts.cgroup_root, self._state)

    def _make_cgroup(self, name: str) -> None:
        asked = replace(
            requests.pod_resources(self._state.pod), pids_limit=self._tools.runtime.facts.pids_limit or None
        )
        self._tools.runtime.pod_cgroups.make(name, asked)

    async def _remove_sandbox(self, effect: do.RemoveSandbox) -> Outcome:
        try:
            async with asyncio.timeout(self._tools.deadlines.sandbox):
                await self._tools.sandboxes.remove(self._state.uid, effect.attempt)
                netfiles.remove(self._tools.paths, self._state.uid)
                # With the sandbox goes what the containers shared: by now the pod has none.
                await asyncio.to_thread(self._tools.runtime.cgroups.remove, self._cgroup())
        except (SandboxFailure, OSError) as error:
            return self._uncleaned("sandbox", error)
        self.sandbox = None
        return did.SandboxRemoved(self._now, effect.attempt)

    async def _prepare_volumes(self, effect: do.PrepareVolumes) -> Outcome:
        seen = self._changes
        try:
            async with asyncio.timeout(self._tools.deadlines.volumes), self._volumes_turn:
                self._volumes = await self._tools.volumes.prepare(self._state.pod, self.objects())
        except (VolumeFailure, OSError) as error:
            if self._changes != seen:  # what was missing may have come meanwhile
                return await self._prepare_volumes(effect)
            if isinstance(error, VolumeFailure):
                return did.VolumesFailed(self._now, error.reason, error.message)
            words = str(error) or "timed out waiting for the volumes"
            return did.VolumesFailed(self._now, "FailedMount", f"MountVolume.SetUp failed: {words}")
        return did.VolumesReady(self._now)

    async def _remove_volumes(self, _effect: do.RemoveVolumes) -> Outcome:
        try:
            async with asyncio.timeout(self._tools.deadlines.volumes), self._volumes_turn:
                self._volumes = None
                await self._tools.volumes.remove(self._state.uid)
        except (VolumeFailure, OSError) as error:
            return self._uncleaned("volumes", error)
        return did.VolumesRemoved(self._now)

    async def update_volumes(self) -> None:
        """Bring changed config maps, secrets, labels and annotations into the files of a pod that has its volumes.

        One at a time, with what is newest by then; after preparing that is under way, and never after removing. What
        the disk does not take is tried again.
        """
        self._changes += 1
        told = False
        while (failure := await self._updated()) is not None:
            if not told:
                words = str(failure) or "updating the volumes took too long"
                self._tools.reports.event(self._state.pod, do.Tell("Warning", "FailedMount", words))
            if isinstance(failure, VolumeFailure) and not isinstance(failure.__cause__, OSError):
                return
            told = True
            await asyncio.sleep(RETRY)

    async def _updated(self) -> VolumeFailure | OSError | None:
        try:
            async with asyncio.timeout(self._tools.deadlines.volumes), self._volumes_turn:
                if self._volumes is not None and not self._state.deleted:
                    await self._tools.volumes.update(self._state.pod, self.objects())
        except (VolumeFailure, OSError) as failure:
            log.warning("cannot update the volumes of pod %s: %s", self._state.title, failure or "it took too long")
            return failure
        return None

    def objects(self) -> Mapping[tuple[str, str, str], Any]:
        """(kind, namespace, name) -> config map or secret, of the pod's namespace."""
        namespace = self._state.pod.metadata.namespace
        kinds = (("ConfigMap", self._tools.objects.config_maps), ("Secret", self._tools.objects.secrets))
        return {(kind, *key): found for kind, table in kinds for key, found in table.items() if key[0] == namespace}

    def _uncleaned(self, part: str, error: BaseException, container: str = "") -> Outcome:
        words = str(error) or "it took too long"
        log.warning("cannot remove %s of pod %s: %s", part, self._state.title, words)
        return did.CleanupFailed(self._now, part, container, words)

    # ── containers ───────────────────────────────────────────────────────────────────────────────────────────

    async def _pull_image(self, effect: do.PullImage) -> Outcome:
        def progress(words: str) -> None:
            self._post(did.ImagePulling(self._now, effect.container, f'Pulling image "{effect.image}": {words}'))

        try:
            async with asyncio.timeout(self._tools.deadlines.pull):
                image, words = await compose.ensure_image(self._tools, self._state, effect.container, progress)
        except ImageFailure as failure:
            return did.ImageFailed(self._now, effect.container, failure.reason, failure.message)
        except TimeoutError:
            words = f"pulling took longer than {self._tools.deadlines.pull:g} s"
            return did.ImageFailed(self._now, effect.container, "RegistryUnavailable", words)
        digest = HOST if image.id == HOST else (image.repo_digest or image.id)
        return did.ImageReady(self._now, effect.container, image.id, digest, image.ref, words)

    async def _create_container(self, effect: do.CreateContainer) -> Outcome:
        def refused(reason: str, message: str) -> Outcome:
            return did.ContainerRefused(self._now, effect.container, effect.attempt, reason, message)

        if self.sandbox is None:
            raise RuntimeError(f"pod {self._state.title} has no sandbox to create {effect.container} in")
        try:
            async with self._in_order[effect.container], asyncio.timeout(self._tools.deadlines.create):
                asked = await compose.compose(self._tools, self._state, effect, self.sandbox, self._volumes or {})
                pid = await self._tools.runtime.create(asked)
        except (ConfigFailure, VolumeFailure, ImageFailure, RuntimeFailure) as failure:
            return refused(failure.reason, failure.message)
        except TimeoutError:
            return refused("CreateContainerError", f"it took longer than {self._tools.deadlines.create:g} s")
        return did.ContainerCreated(self._now, effect.container, effect.attempt, pid)

    async def _start_container(self, effect: do.StartContainer) -> Outcome:
        try:
            async with self._in_order[effect.container], asyncio.timeout(self._tools.deadlines.start):
                await self._tools.runtime.start(self._id(effect.container, effect.attempt))
        except RuntimeFailure as failure:
            return did.ContainerStartFailed(self._now, effect.container, effect.attempt, failure.message)
        except TimeoutError:
            words = f"it took longer than {self._tools.deadlines.start:g} s"
            return did.ContainerStartFailed(self._now, effect.container, effect.attempt, words)
        return did.ContainerStarted(self._now, effect.container, effect.attempt)

    async def _run_hook(self, effect: do.RunHook) -> Outcome:
        # Not in order with the rest: the container is killed over it.
        state, spec = self._state, requests.spec_of(self._state, effect.container)
        handler = spec.lifecycle.postStart if effect.hook == POST_START else spec.lifecycle.preStop
        id_ = self._id(effect.container, effect.attempt)

        def command(pid_file: Path, argv: Sequence[str]) -> Sequence[str]:
            return self._tools.runtime.exec_command(id_, argv, pid_file)

        address, slept = state.address or self._tools.facts.ip, self._now - effect.since
        failure = await self._tools.hooking.run(handler, spec, address, command, slept)
        ended = did.HookEnded(self._now, effect.container, effect.attempt, effect.hook)
        if failure is None:
            return ended
        words = f"{hooking.title(handler, effect.container, state.title)} - error: {failure.message}"
        return replace(ended, failure=failure.words, message=words)

    async def _signal_container(self, effect: do.SignalContainer) -> Outcome:
        id_ = self._id(effect.container, effect.attempt)
        await self._quietly(effect.container, self._tools.runtime.stop(id_))
        return None

    async def _kill_container(self, effect: do.KillContainer) -> Outcome:
        await self._quietly(effect.container, self._tools.runtime.kill(self._id(effect.container, effect.attempt)))
        return None

    async def _quietly(self, container: str, work: Awaitable[None]) -> None:
        """A signal that fails is sent again by the machine, or ends as SIGKILL: it is only reported."""
        try:
            async with self._in_order[container], asyncio.timeout(self._tools.deadlines.signal):
                await work
        except (RuntimeFailure, OSError) as error:
            log.warning("cannot signal container %s of pod %s: %s", container, self._state.title, error or "late")

    async def _remove_container(self, effect: do.RemoveContainer) -> Outcome:
        try:
            async with self._in_order[effect.container], asyncio.timeout(self._tools.deadlines.remove):
                await self._tools.runtime.remove(self._id(effect.container, effect.attempt))
        except (RuntimeFailure, OSError) as error:
            return self._uncleaned(f"container {effect.container}", error, effect.container)
        return did.ContainerRemoved(self._now, effect.container, effect.attempt)

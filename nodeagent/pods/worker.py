"""One task per pod uid: takes events, steps the machine, writes down, reports, then has the effects done.

    event ─► machine.step ─► journal ─► status, events ─► effects (each a task) ─► their outcomes are events again

Owns the pod's state and its tasks. Never decides. An effect starts only after the state that calls for it is
written down. What no effect expects (a bug) ends the worker, and with it the agent: the pods run on, and the next
agent takes over from the journal. A full disk under the journal only makes it wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods import failpoints, startup
from nodeagent.pods.disk import RETRY
from nodeagent.pods.journal import NotDurable
from nodeagent.pods.machine import step, wake_at
from nodeagent.pods.performer import Performer
from nodeagent.pods.state import PodState
from nodeagent.pods.status import outline, pod_status
from nodeagent.pods.stopping import HOLD
from nodeagent.pods.tools import Tools
from nodeagent.types import ContainerExit, Sandbox
from podplane.v1.pod_pb2 import Pod, PodStatus

log = logging.getLogger(__name__)

_DETAILS = 0.1
"""Seconds for which a change of details waits for one that says more, to be told together with it."""
_CANCELS: dict[type[do.Effect], str] = {do.CancelPull: do.PullImage.__name__, do.CancelHook: do.RunHook.__name__}


class PodWorker:
    """The worker of `state`. `post` from anywhere on the loop; `run` until the pod is gone."""

    def __init__(self, tools: Tools, state: PodState, on_gone: Callable[[str], None]) -> None:
        self.state = state
        self.status = PodStatus()
        self._newest = state.pod
        self._tools = tools
        self._performer = Performer(tools, state, self.post)
        self._events: deque[did.Event] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancellable: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._starting: dict[str, list[did.ContainerExited]] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_gone = on_gone
        self._untold: list[PodStatus] = []
        self._telling: asyncio.Task[None] | None = None
        self._outline: Hashable = None
        self._details: asyncio.TimerHandle | None = None
        self._admitted_at = 0.0
        """On the monotonic clock, until the pod is ready for the first time; 0: an earlier agent admitted it."""

    def found_sandbox(self, sandbox: Sandbox | None) -> None:
        """What recovery found of the pod's sandbox."""
        self._performer.sandbox = sandbox

    @property
    def depth(self) -> int:
        """How many events wait."""
        return len(self._events)

    def post(self, event: did.Event) -> None:
        """Have the machine take an event in, after those that were posted before."""
        self._events.append(event)
        self._wake.set()

    def container_exited(self, name: str, attempt: int, end: ContainerExit) -> None:
        """An instance ended. One that is just being started is told after its start: Running is seen first."""
        now = self._tools.clock.now()
        event = did.ContainerExited(now, name, attempt, end.code, end.oom, end.finished_at, end.message)
        if name in self._starting:
            self._starting[name].append(event)
        else:
            self.post(event)

    def update(self, pod: Pod) -> bool:
        """The newest spec, and whether the pod is to end. False where it says nothing new."""
        if not _differs(pod, self._newest):
            return False
        self._newest = pod
        self.post(did.SpecChanged(self._tools.clock.now(), pod))
        if pod.metadata.HasField("deletionTimestamp"):
            # As the kubelet: the grace counts from when the node learns of it, so that it is never cut short.
            self.delete(float(pod.metadata.deletionGracePeriodSeconds), HOLD)
        return True

    def delete(self, grace: float, hold: float = 0.0) -> None:
        """End the pod within `grace` seconds; SIGTERM waits `hold` seconds at most for `withdrawn`."""
        self.post(did.DeletionRequested(self._tools.clock.now(), grace, hold))

    def withdrawn(self) -> None:
        """No node's service rules lead to the pod any more."""
        self.post(did.PodWithdrawn(self._tools.clock.now()))

    def objects_changed(self) -> None:
        """A config map or secret of the pod's namespace changed."""
        self.post(did.ObjectsChanged(self._tools.clock.now()))
        self._start(self._performer.update_volumes(), "volumes")

    async def run(self) -> None:
        """Until the pod is gone. Raises what no effect expected, after an event about it."""
        try:
            while not self.state.gone:
                await self._take(await self._next())
            await asyncio.gather(*self._tasks)
            self._finish()
        except Exception as error:
            self._tell_failure(error)
            raise
        finally:
            self._tools.prober.forget(self.state.uid)
            if self._details is not None:
                self._details.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell_failure(self, error: Exception) -> None:
        """A bug: whoever looks at the pod shall see it, and whoever reads the log what led to it."""
        words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        message = f"the node agent failed on this pod and starts again: {words}"
        self._tools.reports.event(self.state.pod, do.Tell("Warning", "AgentFailure", message))
        history = "\n  ".join(self.state.history)
        log.critical("pod %s: %s; history:\n  %s", self.state.title, words, history, exc_info=error)

    async def _next(self) -> did.Event:
        """The next event; TimePassed when a timer of the machine is due; raises what a task raised."""
        if self._failure.done():
            self._failure.result()
        if self._events:
            return self._events.popleft()
        due = wake_at(self.state, self._tools.clock.now())
        wait = None if due is None else max(0.0, due - self._tools.clock.now())
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return did.TimePassed(self._tools.clock.now())
        self._wake.clear()
        return await self._next()

    async def _take(self, event: did.Event) -> None:
        if isinstance(event, did.PodAdmitted):
            self._admitted_at = time.monotonic()
        issued = step(self.state, event)
        if issued or not isinstance(event, did.SpecChanged | did.ObjectsChanged | did.ImagePulling):
            await self._write_down()
        for effect in issued:
            self._begin(effect)
        await asyncio.sleep(0)  # on their way: nobody waits for what is told
        self._report(issued)
        self._tools.prober.follow(self.state, self.post)
        self._tools.host_ports.follow(self.state)
        if isinstance(event, did.SpecChanged):  # labels and annotations may be files
            self._start(self._performer.update_volumes(), "volumes")

    async def _write_down(self) -> None:
        """The state is written down on return: a full disk holds the pod where it is, which runs on meanwhile.

        Not so a pod that is being deleted: it goes on with what this boot's journal has, since its end makes room.
        """
        while True:
            try:
                await self._tools.journal.record(self.state)
            except OSError as error:
                self._tools.disk.failed(f"the state of pod {self.state.title}", error)
                if self.state.deleted and isinstance(error, NotDurable):
                    return
                await asyncio.sleep(RETRY)
            else:
                self._tools.disk.worked()
                return

    def _report(self, issued: list[do.Effect]) -> None:
        for effect in issued:
            if isinstance(effect, do.Tell):
                self._tools.reports.event(self.state.pod, effect)
        status = pod_status(self.state, self._tools.facts.ip)
        if status != self.status:
            self._count(status)
            self.status = status
            if (shape := outline(status)) != self._outline:
                self._outline = shape
                self._queue()
            elif self._details is None:
                self._details = asyncio.get_running_loop().call_later(_DETAILS, self._queue)

    def _queue(self) -> None:
        """Have the status told as it is now, after those before it."""
        if self._details is not None:
            self._details.cancel()
            self._details = None
        self._untold.append(self._told())
        if self._telling is None:
            self._tell()

    def _tell(self) -> None:
        """Once it is on the disk what they tell: after a power cut, who was said to run must not begin a first time.

        Where that cannot be written, which the journal has logged, they are told all the same.
        """
        if noting := self._tools.journal.noting(self.state.uid):
            self._telling = self._start(self._tell_after(noting), "status")
            return
        for status in self._untold:
            failpoints.hit("report-status:before")
            self._tools.reports.status(self.state, status)
            failpoints.hit("report-status:after")
        self._untold.clear()

    async def _tell_after(self, noting: asyncio.Task[None]) -> None:
        await asyncio.wait([noting])
        self._telling = None
        self._tell()

    def _told(self) -> PodStatus:
        """The status with the steps of the start, which are no reason to tell it again."""
        told = PodStatus(startSteps=startup.steps(self.state))
        told.MergeFrom(self.status)
        return told

    def _count(self, status: PodStatus) -> None:
        again = _restarts(status) - _restarts(self.status)
        if again > 0 and self.status.phase:  # what an earlier agent saw is counted already
            self._tools.metrics.restarts.add(by=again)
        if self._admitted_at and any(item.type == "Ready" and item.status == "True" for item in status.conditions):
            self._tools.metrics.starts.observe(time.monotonic() - self._admitted_at)
            self._admitted_at = 0.0

    def _begin(self, effect: do.Effect) -> None:
        if isinstance(effect, do.Tell | do.ReportGone):
            return
        if isinstance(effect, do.CancelPull | do.CancelHook):
            task = self._cancellable.pop((effect.container, _CANCELS[type(effect)]), None)
            if task is not None:
                task.cancel()
            return
        if isinstance(effect, do.StartContainer):
            self._starting[effect.container] = []
        task = self._start(self._perform(effect), type(effect).__name__)
        if isinstance(effect, do.PullImage | do.RunHook):
            self._cancellable[effect.container, type(effect).__name__] = task

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"pod-{self.state.uid[:8]}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._failure.done():
            log.error("pod %s: %s failed too", self.state.title, task.get_name(), exc_info=error)
        else:
            self._failure.set_exception(error)
            self._wake.set()

    async def _perform(self, effect: do.Effect) -> None:
        began = time.monotonic()
        outcome = await self._performer.perform(effect)
        self._tools.metrics.steps.observe(time.monotonic() - began, type(effect).__name__)
        if outcome is not None:
            self.post(outcome)
        if isinstance(effect, do.StartContainer):
            for event in self._starting.pop(effect.container, ()):
                self.post(event)

    def _finish(self) -> None:
        failpoints.hit("report-gone:before")
        self._tools.reports.gone(self.state, self._told())
        failpoints.hit("report-gone:after")
        self._on_gone(self.state.uid)


def _restarts(status: PodStatus) -> int:
    return sum(each.restartCount for each in (*status.initContainerStatuses, *status.containerStatuses))


def _differs(pod: Pod, known: Pod) -> bool:
    """Whether anything changed that the node acts on: not the status, which is its own word."""
    new, old = pod.metadata, known.metadata
    return (
        pod.spec != known.spec
        or new.labels != old.labels
        or new.annotations != old.annotations
        or new.deletionTimestamp != old.deletionTimestamp
        or new.deletionGracePeriodSeconds != old.deletionGracePeriodSeconds
    )

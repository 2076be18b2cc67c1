"""A hook of a container run once: a command in it, an HTTP GET to it, or a pause.

Runs to the hook's own end or until it is cancelled, which ends the command as well: Kubernetes gives a hook no other
deadline than the life of its container and, for preStop, the grace. Any answer to a GET is a success, as for the
kubelet. Never decides what a failure means. A hook that fails says why; only a bug raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.pods.probing import Failed, Probing
from nodeagent.runtime.inotify import Inotify
from nodeagent.streaming import child
from podplane.v1.container_pb2 import Container, LifecycleHandler

USER_AGENT = "kube-lifecycle/podplane"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a hook failed, and the same with what it said, as the kubelet words it."""

    words: str
    message: str


class Hooking:
    """Runs hooks in the containers of a node. `marks`: where a command is known by the next agent."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def sweep(self) -> None:
        """End what an agent that was killed had begun: those hooks are run again."""
        child.sweep(self._marks)

    async def run(
        self,
        handler: LifecycleHandler,
        container: Container,
        address: str,
        command: Callable[[Path, Sequence[str]], Sequence[str]],
        slept: float,
    ) -> Failure | None:
        """None where it succeeded. `command(options, argv)`: the runtime's command line; `slept`: how long so far."""
        if handler.HasField("sleep"):
            await asyncio.sleep(max(0.0, handler.sleep.seconds - max(0.0, slept)))
            return None
        events = Inotify()
        try:
            probing = Probing(address, container, self._marks, events, command, agent=USER_AGENT)
            return await _act(handler, probing)
        finally:
            events.close()


async def _act(handler: LifecycleHandler, probing: Probing) -> Failure | None:
    try:
        if handler.HasField("exec"):
            code, said = await probing.command(handler.exec.command)
            return Failure(f"command exited with {code}", f"command exited with {code}: {said}") if code else None
        await probing.get(handler.httpGet)
    except (Failed, ValueError) as error:  # ValueError: a host or a redirect that is no address
        return Failure(str(error), str(error))
    return None


def title(handler: LifecycleHandler, container: str, pod: str) -> str:
    """Which hook of whom, as the kubelet says it."""
    if handler.HasField("exec"):
        what = f"Exec lifecycle hook ([{' '.join(handler.exec.command)}])"
    elif handler.HasField("httpGet"):
        what = f"HTTP lifecycle hook ({handler.httpGet.path})"
    else:
        what = f"Sleep lifecycle hook ({handler.sleep.seconds})"
    return f'{what} for Container "{container}" in Pod "{pod}" failed'

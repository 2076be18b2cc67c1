"""A command in a running container, for one caller. Ends with an exit frame; the caller's end is the command's.

Owns one Child. A command that cannot be run is an exit too: 127 where it does not exist, 126 otherwise, and why.
"""

from __future__ import annotations

import asyncio
import re
import signal

from nodeagent.streaming.call import Outgoing, Refused
from nodeagent.streaming.child import Child, NotStarted
from nodeagent.streaming.pumps import Incoming, Source, write_all
from podplane.v1.requests_pb2 import ExecRequest, ExecResponse
from podplane.v1.session_pb2 import AgentStreamFrame, ControlStreamFrame

Exit = ExecResponse.Exit

_MISSING = re.compile(r"not found|no such file", re.IGNORECASE)
_GONE = re.compile(r"container .*(does not exist|not running|stopped)|error opening file .*/status", re.IGNORECASE)


class Exec:
    """The work of one stream. `start`: what was asked for; unset stdout and stderr mean yes, unset stdin means no."""

    def __init__(self, start: ExecRequest.Start, child: Child) -> None:
        self._start = start
        self._child = child
        self._stdin = Incoming()

    def received(self, frame: ControlStreamFrame) -> None:
        kind = frame.exec.WhichOneof("frame")
        if kind == "stdin":
            self._stdin.put(frame.exec.stdin)
        elif kind == "resize":
            self._child.resize(frame.exec.resize.width, frame.exec.resize.height)
        elif kind == "closeStdin":
            self._stdin.close()

    async def run(self, out: Outgoing) -> None:
        try:
            end = await self._run(out)
        except OSError as error:
            raise Refused("UNAVAILABLE", f"cannot run the command: {error}") from error
        finally:
            await self._child.close()
        await out.send(AgentStreamFrame(exec=ExecResponse(exit=end)))

    async def _run(self, out: Outgoing) -> Exit:
        try:
            await self._child.start()
        except NotStarted as failure:
            return not_started(str(failure), self._start.container)
        sources = {name: Source(fd) for name in ("stdout", "stderr") if (fd := getattr(self._child, name)) >= 0}
        senders = [asyncio.ensure_future(self._send(name, source, out)) for name, source in sources.items()]
        feeder = asyncio.ensure_future(self._feed(out))
        try:
            end = await self._end()
            for source in sources.values():
                source.finish()
            await asyncio.gather(*senders)
        finally:
            for task in (*senders, feeder):
                task.cancel()
            await asyncio.gather(*senders, feeder, return_exceptions=True)
        return end

    async def _end(self) -> Exit:
        seconds = self._start.timeoutSeconds
        try:
            async with asyncio.timeout(seconds or None):
                return exited(await self._child.ended())
        except TimeoutError:
            await self._child.kill()
            words = f"command timed out after {seconds} s and was killed"
            return Exit(code=128 + signal.SIGKILL, signal=signal.SIGKILL, reason="DeadlineExceeded", message=words)

    async def _send(self, name: str, source: Source, out: Outgoing) -> None:
        wanted = not self._start.HasField(name) or getattr(self._start, name)  # type: ignore[arg-type]
        async for data in source.chunks():
            if wanted:
                await out.send(AgentStreamFrame(exec=ExecResponse(**{name: data})))  # type: ignore[arg-type]

    async def _feed(self, out: Outgoing) -> None:
        async def write(data: bytes) -> None:
            if self._child.stdin >= 0:
                await write_all(self._child.stdin, data)

        await self._stdin.pour(write, out.taken)
        self._child.close_stdin()


def exited(code: int) -> Exit:
    """How a command ended; a shell's 128 + N is told as signal N too, as the runtime does not tell them apart."""
    number = code - 128
    if number in signal.valid_signals():
        return Exit(code=code, signal=number, reason="Error")
    return Exit(code=code, reason="Error" if code else "Completed")


def not_started(words: str, container: str) -> Exit:
    """Why a command does not run. Raises Refused where it is the container that does not."""
    if _GONE.search(words):
        raise Refused("NOT_FOUND", f'container not found ("{container}")')
    code = 127 if _MISSING.search(words) else 126
    return Exit(code=code, reason="StartError", message=f"failed to exec in container: {words}")

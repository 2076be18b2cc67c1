"""Which iptables this node uses, and the running of its commands. nft and legacy are never mixed.

Owns the choice and the deadlines. Knows nothing of services. Fails with RulesRefused (these rules are bad) or
RulesUnavailable (try again later), in iptables' own words.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from nodeagent.proxy.iptables import legacy
from nodeagent.proxy.iptables.text import offending
from nodeagent.proxy.mode import RulesRefused, RulesUnavailable

_DEADLINE = 60.0
"""Seconds for one command."""
_LINES_PER_SECOND = 1000
"""What a restore gets more time for: 10,000 services are 110,000 lines and take iptables-nft-restore 14 s."""
_LOCK_WAIT = "5"
_NO_CHAIN = ("No chain/target/match by that name", "is incompatible, use 'nft' tool")
"""What iptables says of a chain that is not there; the second is iptables-nft 1.8.9's word for it."""
_RESOURCE_PROBLEM = 4
TABLES = ("nat", "filter")


@dataclass(frozen=True, slots=True)
class Restoring:
    """A process that writes rules. end: of it; raises RulesRefused, RulesUnavailable, and if cancelled kills it."""

    pid: int
    end: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Backend:
    """One flavour of iptables: `nft` or `legacy`, and its two programs."""

    flavour: str
    save: str
    restore: str

    async def saved(self) -> str:
        """Return the rules of our tables, in iptables-save's words. Slow with many: not for the hot path."""
        return "".join([await self._table(table) for table in TABLES])

    async def _table(self, table: str) -> str:
        if self.flavour == "legacy" and table not in legacy.tables():
            return ""  # asking would make it
        return await _run([self.save, "-t", table])

    async def listed(self, table: str, chain: str) -> str:
        """One chain, in iptables-save's words; "" where there is none such."""
        try:
            lines = (await _run([self.restore.removesuffix("-restore"), "-t", table, "-S", chain])).splitlines()
        except RulesRefused as error:
            if any(words in str(error) for words in _NO_CHAIN):
                return ""
            raise
        # The first line makes the chain, or says its policy.
        return "\n".join([f":{chain} - [0:0]", *lines[1:]])

    async def apply(self, text: str) -> None:
        """Give text to iptables-restore: per table all of it, or nothing."""
        await self._finish(await self._start(), text)

    async def begin(self, text: str) -> Restoring:
        """As apply(), for a caller that waits for the end, or cancels it."""
        process = await self._start()
        return Restoring(process.pid, asyncio.create_task(self._finish(process, text), name="iptables-restore"))

    async def _start(self) -> asyncio.subprocess.Process:
        return await _start([self.restore, "--noflush", "-w", _LOCK_WAIT])

    async def _finish(self, process: asyncio.subprocess.Process, text: str) -> None:
        try:
            await _finish(process, self.restore, text, _DEADLINE + text.count("\n") / _LINES_PER_SECOND)
        except RulesRefused as error:
            line = offending(str(error), text)
            raise RulesRefused(f"{error} (line: {line})" if line else str(error), line) from None


async def detect() -> Backend:
    """Choose legacy if its tables hold rules already, nft otherwise. Raises RulesUnavailable without iptables."""
    older, nft = _backend("legacy"), _backend("nft")
    if older is not None and (_holds_rules(await older.saved()) or nft is None or not await _works(nft)):
        return older
    chosen = nft or _backend("")
    if chosen is None:
        raise RulesUnavailable("cannot program services: iptables-restore is not installed")
    if chosen.flavour == "":
        version = await _run([chosen.restore, "--version"])
        return Backend("nft" if "nf_tables" in version else "legacy", chosen.save, chosen.restore)
    return chosen


async def others(chosen: Backend) -> list[Backend]:
    """The flavours that are not chosen: an earlier run may have left rules there."""
    return [found for name in ("nft", "legacy") if name != chosen.flavour and (found := _backend(name)) is not None]


async def _works(backend: Backend) -> bool:
    """Whether the kernel has this flavour at all."""
    try:
        await backend.saved()
    except RulesRefused:
        return False
    return True


def _backend(flavour: str) -> Backend | None:
    name = f"iptables-{flavour}" if flavour else "iptables"
    save, restore = shutil.which(f"{name}-save"), shutil.which(f"{name}-restore")
    return Backend(flavour, save, restore) if save and restore else None


def _holds_rules(saved: str) -> bool:
    """Rules, chains of somebody's, or a policy that drops: only rules in the same table can let anything pass it."""
    lines = saved.splitlines()
    return any(line.startswith("-A ") or (line.startswith(":") and " ACCEPT " not in line) for line in lines)


async def _run(command: list[str]) -> str:
    return await _finish(await _start(command), command[0], "", _DEADLINE)


async def _start(command: list[str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise RulesUnavailable(f"cannot run {command[0]}: {error}") from error


async def _finish(process: asyncio.subprocess.Process, program: str, text: str, deadline: float) -> str:
    try:
        # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the result.
        async with asyncio.timeout(deadline):
            out, err = await process.communicate(text.encode())
    except TimeoutError:
        raise RulesUnavailable(f"{program} did not end within {deadline:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate(b"")  # to its end, which closes the pipes as well
    if process.returncode == 0:
        return out.decode(errors="replace")
    words = err.decode(errors="replace").strip() or f"exit status {process.returncode}"
    message = f"{Path(program).name}: {words}"
    # nft has the same status for a rule that the kernel refuses, but names its line then.
    if process.returncode == _RESOURCE_PROBLEM and not offending(words, text):
        raise RulesUnavailable(message)
    raise RulesRefused(message)

"""What is written counts once the kernel says so, and the process's end is not forgotten: with the real iptables."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nodeagent.proxy.iptables.backend import Backend
from nodeagent.proxy.iptables.commits import Commits, tells
from nodeagent.proxy.iptables.kernel import Iptables
from nodeagent.proxy.iptables.rules import Part, Tables, assemble
from nodeagent.proxy.mode import Ranges, RulesUnavailable
from tests.net.kernel import World, command, inside
from tests.support.waiting import patient

telling = pytest.mark.skipif(not tells(), reason="the kernel tells of processes by other numbers than are theirs here")
ENDS_LATE = """#!/bin/sh
# iptables-nft-restore as this very process, which has more to read until somebody has written to the pipe "more".
cd {here}
mkfifo in.$$
test -e last && test -e /proc/$(cat last) && touch overlapped
echo $$ > last
exec 3<&0
(cat <&3; cat more) > in.$$ &
exec iptables-nft-restore "$@" < in.$$
"""
WITHIN = """#!/bin/sh
# iptables-nft-restore as a child of this process.
echo $$ > {here}/last
iptables-nft-restore "$@"
exit $?
"""
NEVER = """#!/bin/sh
echo $$ > {here}/last
exec cat {here}/more
"""


class Restore:
    """A program in the place of iptables-nft-restore."""

    def __init__(self, here: Path, script: str) -> None:
        self._here = here
        os.mkfifo(here / "more")
        program = here / "restore"
        program.write_text(script.format(here=here))
        program.chmod(0o755)
        save = shutil.which("iptables-nft-save")
        assert save is not None
        self.backend = Backend("nft", save, str(program))

    @property
    def runs(self) -> bool:
        """Whether the last process is there; a zombie is."""
        return Path("/proc", (self._here / "last").read_text().strip()).exists()

    @property
    def started(self) -> bool:
        last = self._here / "last"
        return last.exists() and last.read_text().endswith("\n")

    @property
    def overlapped(self) -> bool:
        """Whether one was started while the one before was there."""
        return (self._here / "overlapped").exists()

    async def more(self, text: str = "") -> None:
        """Give the process something more to read, and the end."""
        await asyncio.to_thread((self._here / "more").write_text, text)

    def close(self) -> None:
        """Whoever waits for more has the end."""
        more = self._here / "more"
        held = os.open(more, os.O_RDWR)  # for those who open it now
        more.unlink()
        more.write_text("")
        os.close(held)


def wanted(*names: str) -> Tables:
    """Of services that do nothing."""
    parts = [Part({f"PODPLANE-SVC-{name}": ("-j RETURN",)}) for name in names]
    return assemble(parts, Ranges("10.77.1.0/24", "10.77.0.0/16"))


def restoring(world: World, here: Path, script: str, scenario: Callable[[Restore, Iptables], Awaitable[None]]) -> None:
    """In the node's namespace."""

    async def run() -> None:
        restore = Restore(here, script)
        iptables = Iptables(restore.backend)
        try:
            async with asyncio.timeout(patient(10)):
                await scenario(restore, iptables)
        finally:
            restore.close()
            await iptables.close()

    inside(world.node, lambda: asyncio.run(run()))


def standing(world: World, name: str) -> bool:
    return f":PODPLANE-SVC-{name} " in command(world.node, "iptables-nft-save -t nat")


async def a_while() -> None:
    """So many turns of the loop that whatever need not wait has come far."""
    for _ in range(100):
        await asyncio.sleep(0)


@telling
def test_rules_are_written_once_the_kernel_says_so_and_the_next_wait_for_the_process(
    world: World, tmp_path: Path
) -> None:
    async def scenario(restore: Restore, iptables: Iptables) -> None:
        heard: list[None] = []
        iptables.listen(lambda: heard.append(None))
        await iptables.apply(wanted("A"))  # both tables
        assert restore.runs
        assert standing(world, "A")
        assert "PODPLANE-FORWARD" in command(world.node, "iptables-nft-save -t filter")
        assert (iptables.certain, iptables.settled) == (True, True)
        following = asyncio.create_task(iptables.apply(wanted("A", "B")))
        await a_while()
        await restore.more()
        await following
        assert standing(world, "B")
        assert (restore.runs, restore.overlapped) == (True, False)
        written = iptables.written
        looking = asyncio.create_task(iptables.verify())
        await a_while()
        await restore.more()
        assert await looking is False
        # What we have written ourselves is no news.
        assert (restore.runs, iptables.certain, iptables.written, heard) == (False, True, written, [])

    restoring(world, tmp_path, ENDS_LATE, scenario)


@telling
def test_a_process_that_fails_after_its_commits_is_told_and_everything_looked_at_again(
    world: World, tmp_path: Path
) -> None:
    async def scenario(restore: Restore, iptables: Iptables) -> None:
        await iptables.apply(wanted("A"))
        await restore.more("nonsense\n")
        with pytest.raises(RulesUnavailable, match=r"after the kernel had taken its rules.*line \d+"):
            await iptables.apply(wanted("A", "B"))
        assert (restore.runs, iptables.certain, standing(world, "B")) == (False, False, False)
        await iptables.apply(wanted("A", "B"))
        assert (iptables.certain, standing(world, "B")) == (True, True)
        await restore.more()

    restoring(world, tmp_path, ENDS_LATE, scenario)


@telling
def test_the_process_is_gone_when_the_rules_are_given_up(world: World, tmp_path: Path) -> None:
    async def scenario(restore: Restore, iptables: Iptables) -> None:
        await iptables.apply(wanted("A"))
        closing = asyncio.create_task(iptables.close())
        await restore.more()
        await closing
        assert not restore.runs

    restoring(world, tmp_path, ENDS_LATE, scenario)


def test_where_the_commits_are_not_the_processs_own_its_end_counts(world: World, tmp_path: Path) -> None:
    async def scenario(restore: Restore, iptables: Iptables) -> None:
        await iptables.apply(wanted("A"))
        assert not restore.runs
        assert standing(world, "A")
        assert iptables.certain

    restoring(world, tmp_path, WITHIN, scenario)


def test_a_process_that_is_waited_for_no_longer_is_gone(world: World, tmp_path: Path) -> None:
    async def scenario(restore: Restore, iptables: Iptables) -> None:
        writing = asyncio.create_task(iptables.apply(wanted("A")))
        while not restore.started:
            await asyncio.sleep(0.005)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert not restore.runs

    restoring(world, tmp_path, NEVER, scenario)


@telling
def test_commits_of_others_do_not_count(world: World) -> None:
    async def run() -> None:
        commits = Commits()
        before = commits.generation()
        pipe = asyncio.subprocess.PIPE
        try:
            with commits.heard():
                process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=pipe)
                counted = asyncio.create_task(commits.by(process.pid, 1))
                for name in ("a", "b"):
                    await asyncio.to_thread(command, world.node, f"nft add table ip {name}")
                await a_while()
                assert not counted.done()
                await process.communicate(b"add table ip c\n")
                async with asyncio.timeout(patient(10)):
                    await counted
            assert commits.generation() == before + 3
        finally:
            commits.close()

    inside(world.node, lambda: asyncio.run(run()))

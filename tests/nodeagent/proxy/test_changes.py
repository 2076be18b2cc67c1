"""Hearing of changed rules, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nodeagent.proxy.changes import Changes, deaf
from tests.net.kernel import World, command, inside


def listening(world: World, scenario: Callable[[Changes, asyncio.Queue[None]], Awaitable[None]]) -> None:
    async def run() -> None:
        heard: asyncio.Queue[None] = asyncio.Queue()
        changes = Changes(lambda: heard.put_nowait(None))
        try:
            async with asyncio.timeout(10):
                await scenario(changes, heard)
        finally:
            changes.close()

    inside(world.node, lambda: asyncio.run(run()))


def test_a_change_is_heard_once_until_listening_is_resumed(world: World) -> None:
    async def scenario(changes: Changes, heard: asyncio.Queue[None]) -> None:
        for name in ("a", "b", "c"):
            await asyncio.to_thread(command, world.node, f"nft add table ip {name}")
        await heard.get()
        assert heard.empty()
        changes.drain()
        changes.resume(0)
        changes.resume(0)
        await asyncio.sleep(0)
        await asyncio.to_thread(command, world.node, "nft add table ip d")
        await heard.get()
        assert heard.empty()

    listening(world, scenario)


def test_what_comes_during_the_rest_is_heard_after_it(world: World) -> None:
    async def scenario(changes: Changes, heard: asyncio.Queue[None]) -> None:
        await asyncio.to_thread(command, world.node, "nft add table ip a")
        await heard.get()
        changes.drain()
        await asyncio.to_thread(command, world.node, "nft add table ip b")
        changes.resume(0.01)
        await heard.get()

    listening(world, scenario)


def test_more_than_the_buffer_holds_is_a_change_like_any(world: World) -> None:
    async def scenario(changes: Changes, heard: asyncio.Queue[None]) -> None:
        rules = "".join(f'add rule ip a c ip saddr 10.0.0.1 counter comment "{"x" * 100}{n}"\n' for n in range(3000))
        await asyncio.to_thread(command, world.node, "nft -f -", "add table ip a\nadd chain ip a c\n" + rules)
        await heard.get()
        changes.drain()
        changes.resume(0)
        await asyncio.to_thread(command, world.node, "nft delete table ip a")
        await heard.get()

    listening(world, scenario)


def test_own_changes_are_not_heard_and_later_ones_are(world: World) -> None:
    async def scenario(changes: Changes, heard: asyncio.Queue[None]) -> None:
        with deaf(changes):
            await asyncio.to_thread(command, world.node, "nft add table ip own")
        await asyncio.to_thread(command, world.node, "true")
        assert heard.empty()
        await asyncio.to_thread(command, world.node, "nft add table ip other")
        await heard.get()

    listening(world, scenario)

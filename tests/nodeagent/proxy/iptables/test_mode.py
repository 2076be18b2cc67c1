"""What a mode that is told what has changed brings the kernel to: what it would be brought to by comparing all."""

from __future__ import annotations

import asyncio

from nodeagent.proxy.iptables import adopt, iptables
from nodeagent.proxy.iptables.backend import Backend, detect
from nodeagent.proxy.iptables.rules import part
from nodeagent.proxy.iptables.text import parse
from nodeagent.proxy.mode import Mode, Ranges, Step, Wanted
from nodeagent.proxy.services import Endpoint, ServicePort
from tests.net.kernel import World, inside

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
Services = dict[str, tuple[ServicePort, ...]]


def ports(name: str, *numbers: int) -> tuple[ServicePort, ...]:
    """Of a service whose endpoints have these port numbers."""
    ends = tuple(Endpoint("10.77.1.2", number) for number in numbers)
    return (ServicePort(f"default/{name}", "", "tcp", f"10.96.0.{ord(name)}", 80, 0, ends),)


async def step(mode: Mode, backend: Backend, before: Services, after: Services, kept: tuple[str, ...] = ()) -> set[str]:
    """Apply what has changed; returns who was refused, once all others have what they should."""
    had = adopt.parts(parse(await backend.saved()).tables)
    changed = [key for key in {**before, **after} if before.get(key) is not after.get(key)]
    wanted = Wanted(RANGES, after, frozenset(kept), step=Step(before, [*changed, *kept]))
    refused = await mode.apply(wanted)
    assert await mode.look() is None
    expected = {key: had.get(key) if key in refused or key in kept else part(after[key], RANGES) for key in after}
    expected |= {key: had[key] for key in kept}
    assert adopt.parts(parse(await backend.saved()).tables) == {key: has for key, has in expected.items() if has}
    return set(refused)


def test_what_is_told_to_have_changed_is_brought_to_the_kernel_and_all_else_stays(world: World) -> None:
    async def scenario() -> None:
        mode, backend = await iptables.open(), await detect()
        try:
            services: Services = {f"default/{name}": ports(name, 8080, 8081) for name in "abcd"}
            assert await step(mode, backend, {}, services) == set()
            last = services
            for change in (
                {"default/b": ports("b", 8082)},
                {"default/a": ports("a", 1), "default/d": ports("d", 2, 3, 4)},
                {"default/c": ports("c")},  # nobody answers any more: it is refused in another table
                {"default/c": ports("c", 5), "default/e": ports("e", 6)},
            ):
                services = {**last, **change}
                assert await step(mode, backend, last, services) == set()
                last = services
            # One that iptables refuses, of which nothing is said the next time, and that is right then.
            services = {**last, "default/b": ports("b", 99999), "default/c": ports("c", 7)}
            assert await step(mode, backend, last, services) == {"default/b"}
            last, services = services, {**services, "default/d": ports("d", 8)}
            assert await step(mode, backend, last, services) == {"default/b"}
            last, services = services, {**services, "default/b": ports("b", 9)}
            assert await step(mode, backend, last, services) == set()
            # One of which nothing can be made, and others that go.
            last, services = services, {key: services[key] for key in ("default/a", "default/c", "default/e")}
            assert await step(mode, backend, last, services, ("default/d",)) == set()
            last, services = services, {**services, "default/e": ports("e", 10)}
            assert await step(mode, backend, last, services, ("default/d",)) == set()
            assert await step(mode, backend, services, {}) == set()
        finally:
            await mode.close()

    inside(world.node, lambda: asyncio.run(scenario()))

"""The proxy modes there are, best first, and which one a node takes.

To add a mode: a package with open(), remove() and missing(), and a line in KINDS. `auto` is the first whose self-test
says that nothing is missing; iptables comes first on a node whose iptables drop what is forwarded (as Docker has it),
or come to, since no other mode's rules can let pods pass there. Fails with RulesUnavailable where no mode works on this
kernel, naming each one's reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.proxy import selftest
from nodeagent.proxy.mode import Mode, RulesRefused, RulesUnavailable
from nodeagent.proxy.nftables import nftables
from nodeagent.proxy.obstacles import closed_by_iptables

log = logging.getLogger(__name__)

AUTO = "auto"
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh")
"""IPVS' ways to choose an endpoint."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One mode.

    open: ready for apply(); it is given how ipvs chooses an endpoint, and the run directory, where a mode keeps what
    must outlive the agent. remove: takes all of it out of the kernel, wherever it stems from; at once where there is
    nothing. missing: why it cannot work on this kernel, found by
    trying; "" where it can.

    All raise RulesUnavailable and RulesRefused.
    """

    name: str
    open: Callable[[str, Path], Coroutine[Any, Any, Mode]]
    remove: Callable[[Path], Coroutine[Any, Any, None]]
    missing: Callable[[], Coroutine[Any, Any, str]]


def _plain(open: selftest.Open) -> Callable[[str, Path], Coroutine[Any, Any, Mode]]:
    """Of a mode that needs neither."""
    return lambda _scheduler, _run: open()


# Imported once they are asked for, which of most nodes' starts is when the rules stand: 30 ms.
async def _open_ipvs(scheduler: str, run: Path) -> Mode:
    from nodeagent.proxy.ipvs import ipvs

    return await ipvs.open(scheduler, run)


async def _remove_ipvs(run: Path) -> None:
    from nodeagent.proxy.ipvs import ipvs

    await ipvs.remove(run)


async def _missing_ipvs() -> str:
    from nodeagent.proxy.ipvs import ipvs

    return await ipvs.missing("rr")


async def _open_iptables() -> Mode:
    from nodeagent.proxy.iptables import iptables

    return await iptables.open()


async def _remove_iptables(_run: Path) -> None:
    from nodeagent.proxy.iptables import iptables

    await iptables.remove()


KINDS: tuple[Kind, ...] = (
    Kind("nftables", _plain(nftables.open), lambda _: nftables.remove(), lambda: selftest.missing(nftables.open)),
    Kind("ipvs", _open_ipvs, _remove_ipvs, _missing_ipvs),
    Kind("iptables", _plain(_open_iptables), _remove_iptables, lambda: selftest.missing(_open_iptables)),
)
NAMES: tuple[str, ...] = (*(kind.name for kind in KINDS), AUTO)


async def choose(name: str, kinds: Sequence[Kind] = KINDS) -> Kind:
    """The kind of that name, or the best that works here. Raises RulesUnavailable."""
    if name != AUTO:
        return next(kind for kind in kinds if kind.name == name)
    reasons: list[str] = []
    if table := await asyncio.to_thread(_closed):
        reasons.append(f"others cannot let pods pass the policy of table {table}, chain FORWARD")
        kinds = sorted(kinds, key=lambda kind: kind.name != "iptables")
    for kind in kinds:
        if not (reason := await kind.missing()):
            log.info("the proxy takes mode %s", kind.name, extra={"passed over": reasons})
            return kind
        reasons.append(f"{kind.name}: {reason}")
    raise RulesUnavailable(f"no proxy mode works on this kernel: {'; '.join(reasons)}")


async def is_outdated(name: str, chosen: str) -> bool:
    """Whether iptables have come to drop what is forwarded since `chosen` was: Docker has been started meanwhile."""
    return name == AUTO and chosen != "iptables" and bool(await asyncio.to_thread(_closed))


def _closed() -> str:
    try:
        return closed_by_iptables()
    except OSError as error:
        log.info("cannot look for filters that drop what is forwarded: %s", error)
        return ""


async def remove_others(chosen: str, run: Path) -> dict[str, str]:
    """Take what other modes than the chosen one ("" for none) have left out of the kernel; what failed, by name."""
    failed = {}
    for kind in KINDS:
        if kind.name != chosen:
            try:
                await kind.remove(run)
            except (RulesRefused, RulesUnavailable, OSError) as error:
                failed[f"mode {kind.name}"] = f"what it has left cannot be removed: {error}"
    return failed

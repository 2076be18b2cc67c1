"""The proxy's one task: makes rules of the newest services, keeps them in the kernel, and says how far it is.

Owns what was asked for, which mode works at it, and the connections to forget. Never decides what a rule is nor how it
gets into the kernel: that is the mode's. A service that cannot be programmed keeps the rules it had, is reported, and
holds up no other. What fails is tried again; what others changed is mended as soon as the kernel tells of it, or
within a look's interval. Stopping the task leaves the rules working.

A node whose mode has been changed gets the new mode's rules first; only then what the old one left is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nodeagent.garbage import uncollected
from nodeagent.proxy import conntrack, modes
from nodeagent.proxy.complaints import NO_HEALTH_CHECK, UNPROGRAMMED, Complaint, Complaints
from nodeagent.proxy.desired import Asked, Desired, Desires, Key, Touched
from nodeagent.proxy.health import HealthChecks
from nodeagent.proxy.inspection import fill, remote
from nodeagent.proxy.mode import Mode, Ranges, RulesRefused, RulesUnavailable, Wanted, differing
from nodeagent.proxy.obstacles import closed
from nodeagent.proxy.reach import unreachable
from nodeagent.proxy.runner import Outcome, Pace, Runner
from nodeagent.proxy.services import HostPort, ServicePort, Unprogrammable, key_of, ports_of, slices_of
from nodeagent.sandbox import sysctl
from podplane.errors import NotSupported
from podplane.v1 import endpointslice_pb2, service_pb2
from podplane.v1.diagnosis_pb2 import ServiceRules

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the kernel is. revision: everything up to it is there, but for what error names; "": all of it."""

    revision: int
    error: str = ""
    frozen: frozenset[str] = frozenset()
    """Services (namespace/name) that cannot be programmed: they have the rules of an older revision, or none."""


Programmed = Callable[[Progress], None]

Complained = Callable[[service_pb2.Service, Complaint], None]

_TURN = 2.0
"""Seconds that a question waits for work that is under way."""
LOCALNET = "net.ipv4.conf.all.route_localnet"
"""The kernel setting by which node ports answer on 127.0.0.1."""


class ProxySync:
    """The service rules of one node. run() works; update() and configure() only say what is wanted."""

    def __init__(self, mode: str, run: Path, pace: Pace | None = None, scheduler: str = "rr") -> None:
        """mode: one of modes.NAMES. run: where the kernel settings that cleanup() gives back are kept.

        scheduler: how mode ipvs chooses an endpoint. Raises NotSupported.
        """
        if mode not in modes.NAMES:
            raise NotSupported(f"cannot run the proxy in mode {mode!r}: this version has {', '.join(modes.NAMES)}")
        self._asked_mode = mode
        self._scheduler = scheduler
        self.problem: str | None = None
        """Why the mode cannot be had on this node; None where it can, or before configure()."""
        self._run = run
        self._saved = run / "proxy.json"
        self._runner = Runner(self._work, pace or Pace())
        self._asked: Asked | None = None
        self._heeded: Asked | None = None
        """The last of which values were made."""
        self._ranges: Ranges | None = None
        self._host_ports: tuple[HostPort, ...] = ()
        self._desires = Desires()
        self._mode: Mode | None = None
        self._is_alone = False
        self._has_chosen_again = False
        """Once is enough: where iptables do not work, the mode stays what it was."""
        self._standing: Mapping[str, tuple[ServicePort, ...]] = {}
        self._standing_host_ports: tuple[HostPort, ...] = ()
        self._stale: set[conntrack.Stale] = set()
        self._callbacks: list[Programmed] = []
        self._complained: list[Complained] = []
        self._complaints = Complaints()
        self._failure = ""
        self._logged = ""
        self._turn = asyncio.Lock()
        self._works = True
        self._checks = HealthChecks(lambda: self._works)
        self._revision = 0
        self._frozen: frozenset[str] = frozenset()
        self.looks = 0
        """Times that the rules were looked at for changes by others, since the start."""

    @property
    def mode(self) -> str:
        """The mode that works; the one asked for before it is known."""
        return self._mode.name if self._mode else self._asked_mode

    @property
    def written(self) -> int:
        """What was given to the kernel since the start: lines, elements or messages, by mode."""
        return self._mode.written if self._mode else 0

    async def inspect(self, key: str) -> ServiceRules:
        """What the kernel has of a service (namespace/name) now, beside what was asked for last.

        Raises RulesRefused, RulesUnavailable, OSError where the kernel cannot be read.
        """
        async with self._between():
            asked, ranges, mode = self._asked, self._ranges, self._mode
            error = self._failure or self.problem or ""
            made = ServiceRules(mode=self.mode, programmedRevision=self._revision, error=error)
            namespace, _, name = key.partition("/")
            service = asked.services.get((namespace, name)) if asked else None
            if asked is None or service is None:
                made.error = error if asked else error or "the agent has not heard of any service since its start"
                return made
            made.known, made.knownRevision, made.serviceError = True, asked.revision, self._complaints.of(key)
            if mode is None or ranges is None:
                made.error = error or "the agent has not programmed anything since its start"
                return made
            try:
                wanted = ports_of(service, slices_of(service, asked.slices.values()), asked.node_name)
                ports = self._desires.granted(key, wanted)
            except Unprogrammable as refusal:
                made.serviceError = str(refusal)
                return made
            found = await mode.inspect(key, ports, ranges)
            await asyncio.to_thread(fill, made, ports, found)
            made.unreachable.update(await asyncio.to_thread(unreachable, remote(ports), ranges.cluster_cidr))
            made.obstacles.extend(await asyncio.to_thread(closed, found.passed))
            return made

    @contextlib.asynccontextmanager
    async def _between(self) -> AsyncIterator[None]:
        """When nothing is written, or beside what takes long: then it is seen half done, which is the truth."""
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TURN):
                    await stack.enter_async_context(self._turn)
            yield

    def on_programmed(self, callback: Programmed) -> None:
        """Call back after each time of work that something was asked for, whether it succeeded or not."""
        self._callbacks.append(callback)

    def on_complaint(self, callback: Complained) -> None:
        """Call back when a service cannot be programmed: at once, and now and then while it lasts."""
        self._complained.append(callback)

    def configure(self, pod_cidr: str, cluster_cidr: str) -> None:
        """Say which range the node's pods have and which all pods have; nothing is programmed before."""
        self._ranges = Ranges(pod_cidr, cluster_cidr)
        self._runner.trigger()

    def update(
        self,
        services: Mapping[Key, service_pb2.Service],
        slices: Mapping[Key, endpointslice_pb2.EndpointSlice],
        node_name: str,
        *,
        revision: int = 0,
        touched: Touched | None = None,
    ) -> None:
        """Say what is wanted: all services and slices of the cluster as of revision. Must not be changed afterwards.

        touched: which of them may be other than those said before; None: it is not known.
        """
        before, asked = self._asked, Asked(services, slices, node_name, revision, touched)
        self._asked = asked if before is None or before is self._heeded else asked.after(before)
        self._runner.trigger()

    def set_host_ports(self, host_ports: Iterable[HostPort]) -> None:
        """Say which ports of this node lead to pods on it: all of them."""
        new = tuple(sorted(host_ports))
        if new != self._host_ports:
            self._host_ports = new
            self._runner.trigger()

    async def run(self) -> None:
        """Program what is asked for and keep it, until cancelled."""
        try:
            await self._runner.run()
        finally:
            await self._checks.close()
            if self._mode is not None:
                await self._mode.close()
                self._mode = None

    async def cleanup(self) -> None:
        """Remove every rule of ours, of all modes, and give the kernel setting back. Raises RulesUnavailable, OSError.

        For after run() has ended, or where it never ran.
        """
        self._asked = None
        try:
            sysctl.restore(self._saved)  # before the rule goes that keeps others out of 127.0.0.1
        finally:
            failed = await modes.remove_others("", self._run)
            self._standing = {}
            if failed:
                raise RulesUnavailable(_joined(failed))

    async def _work(self, changed: bool) -> Outcome:
        asked, ranges = self._asked, self._ranges
        if ranges is None:
            return Outcome.EARLY
        try:
            async with self._turn:
                if asked is None:
                    return await self._prepare(ranges)
                outcome = await self._program(asked, ranges) if changed else await self._look()
        except (RulesRefused, RulesUnavailable, OSError) as error:
            self._works, self._failure = False, str(error)
            log.warning("cannot program the services: %s", error)
            self._report(str(error))
            return Outcome.FAILED
        if changed:  # a look that went well says nothing of what failed: work follows each failure (runner.py)
            self._works, self._failure = True, ""
            if self._mode is not None and not self._mode.certain:
                self._runner.suspect()
        return outcome

    def _report(self, error: str) -> None:
        for callback in self._callbacks:
            callback(Progress(self._revision, error, self._frozen))

    async def _prepare(self, ranges: Ranges) -> Outcome:
        """An agent that has just started waits for the control plane, and has something to do."""
        if self._mode is None:
            self._mode = await self._open()
            await self._mode.prepare(ranges)
        return Outcome.EARLY

    async def _program(self, asked: Asked, ranges: Ranges) -> Outcome:
        """Bring the kernel to what is asked. FAILED: something was refused that is worth another try."""
        if self._mode is None:
            self._mode = await self._open()
        self._mode.listen(self._runner.suspect)
        self._heeded = asked
        of = functools.partial(self._desires.of, asked, ranges, self._host_ports)
        desired = of() if self._revision else await asyncio.to_thread(_first, of)
        unprogrammed = await self._mode.apply(desired.wanted)
        self._note(desired.wanted, unprogrammed)
        refused: dict[str, str] = {}
        if not self._is_alone:
            left = await modes.remove_others(self._mode.name, self._run)
            self._is_alone = not left
            refused = left
        unanswered = await self._checks.set(desired.checks)
        wrong = desired.lacking | desired.errors | unprogrammed
        self._complain(asked, wrong, unanswered)
        refused |= self._open_localhost() | await self._forget() | unanswered
        self._revision, self._frozen = asked.revision, frozenset({*desired.wanted.kept, *unprogrammed})
        self._report(self._told(wrong | refused))
        return Outcome.FAILED if unprogrammed or refused else Outcome.DONE

    def _told(self, errors: dict[str, str]) -> str:
        """In one line; logged where it is news, since what two services want both stays as it is."""
        joined = _joined(errors)
        if joined != self._logged:
            for key, message in errors.items():
                log.warning("cannot program all of %s: %s", key, message)
        self._logged = joined
        return joined

    def _complain(self, asked: Asked, wrong: dict[str, str], unanswered: dict[str, str]) -> None:
        standing = {key: Complaint(NO_HEALTH_CHECK, message) for key, message in unanswered.items()}
        standing |= {key: Complaint(UNPROGRAMMED, message) for key, message in wrong.items()}
        due = dict(self._complaints.due(standing, asyncio.get_running_loop().time()))
        for service in asked.services.values() if due else ():
            if (complaint := due.get(key_of(service))) is not None:
                for callback in self._complained:
                    callback(service, complaint)

    async def _open(self) -> Mode:
        try:
            mode = await (await modes.choose(self._asked_mode)).open(self._scheduler, self._run)
        except (RulesRefused, RulesUnavailable, OSError) as error:
            self.problem = f"services cannot be programmed: {error}"
            raise
        self.problem = None
        return mode

    def _note(self, wanted: Wanted, refused: dict[str, str]) -> None:
        """Remember what stands now, and which connections that ends."""
        before, after = self._standing, wanted.services
        changed = None if refused or wanted.kept else wanted.changed_since(before)
        if refused or wanted.kept:
            after = {key: before.get(key, ()) if key in refused else ports for key, ports in after.items()}
            after |= {key: before[key] for key in wanted.kept if key in before}
        for key in differing(before, after) if changed is None else changed:
            self._stale |= conntrack.stale(before.get(key, ()), after.get(key, ()))
        self._stale |= conntrack.stale_host_ports(self._standing_host_ports, wanted.host_ports)
        self._standing, self._standing_host_ports = after, wanted.host_ports

    async def _forget(self) -> dict[str, str]:
        try:
            if self._stale:
                await asyncio.to_thread(conntrack.forget, frozenset(self._stale))
        except OSError as error:
            return {"UDP flows": f"those to endpoints that are gone cannot be forgotten: {error}"}
        self._stale.clear()
        return {}

    async def _look(self) -> Outcome:
        """Mend what others have changed, in the mode that they leave."""
        if self._mode is None:
            return Outcome.DONE
        self.looks += 1
        if not self._has_chosen_again and await modes.is_outdated(self._asked_mode, self._mode.name):
            log.warning("others drop what is forwarded, now: the proxy chooses its mode again")
            await self._mode.close()
            self._mode, self._is_alone, self._has_chosen_again = None, False, True
            self._runner.trigger()
            return Outcome.DONE
        settled = await self._mode.look()
        if settled is not None:
            log.warning("the service rules were changed by somebody else and are mended")
        return Outcome.LEFT if settled is False else Outcome.DONE

    def _open_localhost(self) -> dict[str, str]:
        """Let a node port answer on 127.0.0.1: once the rule stands that keeps other hosts out of it."""
        try:
            sysctl.save(self._saved, [LOCALNET])
            sysctl.write(LOCALNET, "1")
        except OSError as error:
            return {"127.0.0.1": f"node ports do not answer there: {error}"}
        return {}


def _first(of: Callable[[], Desired]) -> Desired:
    """The first time it is all services."""
    with uncollected():
        return of()


def _joined(errors: dict[str, str]) -> str:
    return "; ".join(f"{key}: {message}" for key, message in sorted(errors.items()))

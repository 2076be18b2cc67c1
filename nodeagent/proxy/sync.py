"""The proxy's one task: makes rules of the newest services, keeps them in the kernel, and says how far it is.

Owns the iptables mode's state: what was asked for, what each service has in the kernel, and the connections to forget.
Never decides what a rule is (rules.py) nor how it gets into the kernel (iptables.py). A service that cannot be
programmed keeps the rules it had, is reported, and holds up no other. What fails is tried again; what others changed
is mended as soon as the kernel tells of it, or within a look's interval. Stopping the task leaves the rules working.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.proxy import adopt, conntrack
from nodeagent.proxy.backend import RulesRefused, RulesUnavailable
from nodeagent.proxy.iptables import Iptables
from nodeagent.proxy.isolate import Entry, Isolator
from nodeagent.proxy.rules import assemble, part
from nodeagent.proxy.runner import Pace, Runner
from nodeagent.proxy.services import Unprogrammable, key_of, ports_of, slices_by_service, unsupported
from nodeagent.sandbox import sysctl
from podplane.errors import NotSupported
from podplane.v1 import endpointslice_pb2, service_pb2

log = logging.getLogger(__name__)

Programmed = Callable[[int, str], None]
"""(revision, error): everything up to revision is in the kernel, but for what error names; "": all of it."""

_LOCALNET = "net.ipv4.conf.all.route_localnet"
_THOROUGH = 60.0


@dataclass(frozen=True, slots=True)
class _Asked:
    services: Sequence[service_pb2.Service]
    slices: Sequence[endpointslice_pb2.EndpointSlice]
    node_name: str
    revision: int


@dataclass(frozen=True, slots=True)
class _Ranges:
    pod_cidr: str
    cluster_cidr: str


class ProxySync:
    """The service rules of one node. run() works; update() and configure() only say what is wanted."""

    def __init__(self, mode: str, run: Path, pace: Pace | None = None) -> None:
        """mode: iptables. run: where the kernel setting that cleanup() gives back is kept. Raises NotSupported."""
        if mode != "iptables":
            raise NotSupported(f"cannot run the proxy in mode {mode!r}: this version has iptables")
        self._saved = run / "proxy.json"
        self._runner = Runner(self._work, pace or Pace())
        self._asked: _Asked | None = None
        self._ranges: _Ranges | None = None
        self._iptables: Iptables | None = None
        self._standing: dict[str, Entry] = {}
        self._stale: set[conntrack.Stale] = set()
        self._callbacks: list[Programmed] = []
        self._revision = 0
        self._read_at = 0.0
        self.looks = 0
        """Times that the rules were looked at for changes by others, since the start."""

    @property
    def lines_written(self) -> int:
        """Lines given to iptables-restore since the start."""
        return self._iptables.written if self._iptables else 0

    def on_programmed(self, callback: Programmed) -> None:
        """Call back after each time of work that something was asked for, whether it succeeded or not."""
        self._callbacks.append(callback)

    def configure(self, pod_cidr: str, cluster_cidr: str) -> None:
        """Say which range the node's pods have and which all pods have; nothing is programmed before."""
        self._ranges = _Ranges(pod_cidr, cluster_cidr)
        self._runner.trigger()

    def update(
        self,
        services: Sequence[service_pb2.Service],
        slices: Sequence[endpointslice_pb2.EndpointSlice],
        node_name: str,
        *,
        revision: int = 0,
    ) -> None:
        """Say what is wanted: all services and slices of the cluster as of revision. Must not be changed afterwards."""
        self._asked = _Asked(services, slices, node_name, revision)
        self._runner.trigger()

    async def run(self) -> None:
        """Program what is asked for and keep it, until cancelled."""
        try:
            await self._runner.run()
        finally:
            if self._iptables is not None:
                self._iptables.deafen()

    async def cleanup(self) -> None:
        """Remove every rule of ours and give the kernel setting back. Raises RulesRefused, RulesUnavailable, OSError.

        For after run() has ended, or where it never ran.
        """
        self._asked = None
        try:
            sysctl.restore(self._saved)  # before the rule goes that keeps others out of 127.0.0.1
        finally:
            await (self._iptables or await Iptables.open()).cleanup()
            self._standing.clear()

    async def _work(self, changed: bool) -> bool:
        asked, ranges = self._asked, self._ranges
        if asked is None or ranges is None:
            return True
        try:
            refused = await self._program(asked, ranges) if changed else await self._look()
        except (RulesRefused, RulesUnavailable, OSError) as error:
            log.warning("cannot program the services: %s", error)
            self._report(str(error))
            return False
        if self._iptables is not None and not self._iptables.certain:
            self._runner.suspect()
        return not refused

    def _report(self, error: str) -> None:
        for callback in self._callbacks:
            callback(self._revision, error)

    async def _program(self, asked: _Asked, ranges: _Ranges) -> bool:
        """Bring the kernel to what is asked; returns whether something was refused that is worth another try."""
        if self._iptables is None:
            iptables = await Iptables.open()
            self._standing = {key: Entry((), found) for key, found in adopt.parts(await iptables.found()).items()}
            self._iptables = iptables
        self._iptables.listen(self._runner.suspect)
        wanted, errors = self._entries(asked, ranges)
        before = self._standing
        isolator = Isolator(self._iptables.apply, lambda parts: assemble(parts, ranges.pod_cidr, ranges.cluster_cidr))
        self._standing, refused = await isolator.apply(before, wanted)
        refused |= self._open_localhost() | await self._forget(before)
        self._revision = asked.revision
        errors |= refused
        for key, message in errors.items():
            log.warning("cannot program all of %s: %s", key, message)
        self._report("; ".join(f"{key}: {message}" for key, message in sorted(errors.items())))
        return bool(refused)

    def _entries(self, asked: _Asked, ranges: _Ranges) -> tuple[dict[str, Entry], dict[str, str]]:
        """What each service should have, and what is wrong with some; one that is wrong keeps what it has."""
        slices = slices_by_service(asked.slices)
        entries: dict[str, Entry] = {}
        errors: dict[str, str] = {}
        # In one order always: rules that only change places are written anew.
        for service in sorted(asked.services, key=key_of):
            key = key_of(service)
            old = self._standing.get(key)
            if missing := unsupported(service):
                errors[key] = missing
            try:
                entries[key] = self._entry(service, slices.get(key, ()), asked.node_name, ranges.cluster_cidr)
            except Unprogrammable as error:
                errors[key] = str(error)
                entries |= {key: old} if old else {}
        return entries, errors

    def _entry(
        self,
        service: service_pb2.Service,
        slices: tuple[endpointslice_pb2.EndpointSlice, ...],
        node_name: str,
        cluster_cidr: str,
    ) -> Entry:
        source = (node_name, cluster_cidr, service, *slices)
        old = self._standing.get(key_of(service))
        if old is not None and old.made_of(source):
            return old
        ports = ports_of(service, slices, node_name)
        return Entry(ports, part(ports, cluster_cidr), source)

    async def _forget(self, before: dict[str, Entry]) -> dict[str, str]:
        for key in before.keys() | self._standing.keys():
            old, new = before.get(key), self._standing.get(key)
            if old is not new:
                self._stale |= conntrack.stale(old.ports if old else (), new.ports if new else ())
        try:
            if self._stale:
                await asyncio.to_thread(conntrack.forget, frozenset(self._stale))
        except OSError as error:
            return {"UDP flows": f"those to endpoints that are gone cannot be forgotten: {error}"}
        self._stale.clear()
        return {}

    async def _look(self) -> bool:
        """Mend what others have changed; returns whether there is more to mend: they went on meanwhile."""
        if self._iptables is None:
            return False
        self.looks += 1
        now = asyncio.get_running_loop().time()
        thorough = self._iptables.backend.flavour == "legacy" and now - self._read_at > _THOROUGH
        self._read_at = now if thorough else self._read_at
        if await self._iptables.verify(thorough=thorough):
            log.warning("the service rules were changed by somebody else and are mended")
            return not self._iptables.settled
        return False

    def _open_localhost(self) -> dict[str, str]:
        """Let a node port answer on 127.0.0.1: once the rule stands that keeps other hosts out of it."""
        try:
            sysctl.save(self._saved, [_LOCALNET])
            sysctl.write(_LOCALNET, "1")
        except OSError as error:
            return {"127.0.0.1": f"node ports do not answer there: {error}"}
        return {}

"""START HERE: the composition root of the node agent. Connect, recover, route to pod workers and proxy.

    paths, lock ─► identity (join.py where there is none) ─► network, runtime ─► recovery ─► session ─► ...

Owns the order of these, the node's own status, and the end: SIGTERM ends the agent, and the pods run on. A background
task that ends unexpectedly ends the agent with its reason; the service manager starts the next one, which recovers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable

from nodeagent import certificates, node_status
from nodeagent.certificates import Identity
from nodeagent.config import Config
from nodeagent.dns.server import DnsServer
from nodeagent.joining import CannotStart, hold_network, identify, lock, run_join
from nodeagent.metrics import Metrics
from nodeagent.network_follower import NetworkFollower
from nodeagent.node_status import Machine
from nodeagent.pods.addresses import Addresses
from nodeagent.pods.clock import Clock
from nodeagent.pods.disk import Disk
from nodeagent.pods.hostports import HostPorts
from nodeagent.pods.journal import Journal
from nodeagent.pods.kept import KeptPods
from nodeagent.pods.manager import Pods
from nodeagent.pods.objects import Objects
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.recovery import recover
from nodeagent.pods.requests import LOWEST_OOM_SCORE
from nodeagent.pods.resolvconf import ClusterDns
from nodeagent.pods.tools import Deadlines, NodeFacts, Tools
from nodeagent.pressure.evictor import Evictor
from nodeagent.pressure.hold import Hold
from nodeagent.proxy.sync import Progress, ProxySync
from nodeagent.receiver import FrameReceiver
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.containers import Deadlines as RuntimeDeadlines
from nodeagent.runtime.detection import RuntimeNotReady
from nodeagent.runtime.fields import PodFacts
from nodeagent.runtime.image_gc import ImageGc
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.opening import open_runtime
from nodeagent.runtime.pause import Parts, PauseProcesses
from nodeagent.runtime.rotation import LogRotator
from nodeagent.runtime.volumes import Volumes
from nodeagent.sandbox import namespaces
from nodeagent.sandbox.network import Network, Settings
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.session import Session
from nodeagent.streams import Streams
from nodeagent.types import Resources
from nodeagent.usage import Meter
from podplane.metrics_server import MetricsServer
from podplane.tasks import Tasks
from podplane.v1.session_pb2 import ProxyReport, Welcome

log = logging.getLogger(__name__)

NODE_REPORT = 60.0
NODE_LOOK = 5.0
RUNTIME_RETRY = 10.0
RENEW_RETRY = 60.0
RENEW_LOOK = 60.0
CLOCK_LOOK = 1.0
LAST_WORDS = 1.0
"""Seconds for what is still to be said (an event about the pod that failed) when the agent ends by a failure."""


class Agent:
    """One node's agent."""

    def __init__(self, config: Config, machine: Machine, journal: Journal, network: Network) -> None:
        self._config = config
        self._machine = machine
        self._journal = journal
        self._network = network
        self._tasks = Tasks()
        self._clock = Clock()
        self._facts = NodeFacts(
            machine.name, machine.ip, machine.memory, machine.allocatable, config.cgroup_root,
            socket.gethostname(), ClusterDns(config.cluster_dns, config.cluster_domain), config.allowed_unsafe_sysctls,
            config.resolv_conf,
        )  # fmt: skip
        self._outbox = Outbox(self._facts, self._clock)
        self._objects = Objects(config.paths)
        self._addresses = Addresses()
        self._disk = Disk()
        hold = Hold(config.eviction_hard, config.pressure_transition)
        self._evictor = Evictor(hold, config.paths, self._disk, lambda: self._look_now.set(), self._outbox.node_event)
        self._metrics = Metrics()
        self._images = ImageStore(
            config.paths.state, config.paths.run, registries_conf=config.registries_conf, limits=config.pulls,
            metrics=self._metrics,
        )  # fmt: skip
        self._metrics.describe_images(lambda: self._images.pulling)
        self._runtime: ContainerRuntime | None = None
        self._runtime_problem: str | None = "the container runtime is being tried"
        self._proxy = ProxySync(config.proxy_mode, config.paths.run, scheduler=config.ipvs_scheduler)
        self._receiver = FrameReceiver(
            config.paths, machine.name, self._objects, self._outbox, lambda welcome: self._welcomed(welcome)
        )
        self._dns: DnsServer | None = None
        if not config.cluster_dns:  # pods have another one otherwise
            self._dns = DnsServer(self._objects, self._metrics, config.cluster_domain, config.resolv_conf)
        self._follower = NetworkFollower(machine.name, self._objects, self._receiver, network, self._proxy, self._dns)
        self._metrics.describe(lambda: self._receiver.is_connected, lambda: self._outbox.depth)
        self._metrics_server: MetricsServer | None = None
        self._since: dict[str, tuple[str, float]] = {}
        self._look_now = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises TaskEnded; CannotStart where the metrics' address cannot be had."""
        if self._config.metrics is not None:
            try:
                self._metrics_server = await MetricsServer.open(self._metrics.registry, *self._config.metrics)
            except OSError as error:
                raise CannotStart(str(error)) from error
        self._objects.load()
        self._addresses.cidr = self._receiver.membership.pod_cidr
        kept = KeptPods(self._config.paths)
        specs = kept.read()
        self._receiver.traces = lambda: [kept.trace(pod, pod.status.phase) for pod in specs.values()]
        self._proxy.on_programmed(self._programmed)
        self._proxy.on_complaint(self._outbox.service_event)
        self._tasks.start(self._follower.run(), name="network follower")
        self._tasks.start(self._proxy.run(), name="proxy")
        self._tasks.start(self._evictor.run(), name="pressure")
        if self._dns is not None:
            self._tasks.start(self._dns.run(), name="dns")
        began = await self._try_runtime()
        self._tasks.start(self._report_node(), name="node status")
        if not began:
            self._tasks.spawn(self._retry_runtime(), name="runtime")
        session = Session(lambda: certificates.read(self._config.paths.pki), self._outbox, self._receiver)
        self._tasks.start(session.run(), name="session")
        self._tasks.start(self._renew(), name="certificate renewal")
        await self._until(stop)

    async def _until(self, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        failed = asyncio.ensure_future(self._tasks.wait())
        try:
            await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                await self._outbox.emptied(LAST_WORDS)
                failed.result()
        finally:
            for waiter in (stopped, failed):
                waiter.cancel()
            await self._close()

    async def _close(self) -> None:
        await self._tasks.stop()
        if self._metrics_server is not None:
            await self._metrics_server.close()
        await self._images.close()
        if self._runtime is not None:
            await self._runtime.close()
        self._network.close()
        self._journal.close()

    # ── the runtime, and then the pods ───────────────────────────────────────────────────────────────────────

    async def _try_runtime(self) -> bool:
        paths = self._config.paths
        try:
            self._runtime = await open_runtime(
                state=paths.state,
                run=paths.run,
                runtime=self._config.runtime,
                images=self._images,
                hidden=self._config.host_image_hide,
                conmon_cgroup=f"{self._config.cgroup_root}/conmon",
                pids_limit=self._config.pod_pids_limit,
                pods=self._all_pods(),
                deadlines=RuntimeDeadlines.within(self._config.runtime_timeout),
            )
        except RuntimeNotReady as error:
            if str(error) != self._runtime_problem:
                log.error("the container runtime is not ready: %s", error)
            self._runtime_problem = str(error)
            return False
        self._runtime_problem = None
        self._look_now.set()
        await self._begin(self._runtime)
        return True

    def _all_pods(self) -> Resources:
        """What the pods may have together: all but what is reserved. Thresholds are there to keep them below it."""
        reserved, this = self._config.reserved, self._machine
        return Resources(
            cpu_request=this.cpus * 1000 - reserved.cpu,
            memory_limit=max(1 << 20, this.memory - reserved.memory),
            pids_limit=this.pids - reserved.pids if reserved.pids else None,
        )

    async def _retry_runtime(self) -> None:
        while not await self._try_runtime():
            await asyncio.sleep(RUNTIME_RETRY)

    async def _begin(self, runtime: ContainerRuntime) -> None:
        tools = self._tools(runtime)
        pods = Pods(tools, self._outbox, self._tasks, self._machine.allocatable, lambda: self._evictor.short)
        await recover(tools, pods)
        self._metrics.describe_pods(pods.phases, lambda: pods.depth)
        self._tasks.start(pods.route_exits(), name="exits")
        self._tasks.start(pods.route_losses(), name="lost sandboxes")
        self._tasks.start(tools.prober.run(), name="probes")
        self._tasks.start(self._follow_clock(pods), name="clock")
        self._tasks.start(pods.save_waiting(), name="specs that wait")
        rotator = LogRotator(runtime.living_logs, runtime.reopen_log)
        self._tasks.start(rotator.run(), name="log rotation")
        meter = Meter(runtime.cgroups, self._config.cgroup_root, pods.states)
        streams = Streams(pods, self._outbox, self._tasks, self._config.paths, runtime, meter, self._proxy)
        gc = ImageGc(self._images, self._config.image_gc, lambda: pods.images() | runtime.images(),
                     self._outbox.node_event, self._metrics)  # fmt: skip
        self._tasks.start(gc.run(), name="image collection")
        self._evictor.attend(pods, runtime, self._config.cgroup_root, gc.reclaim)
        self._receiver.ready(pods, streams)

    def _tools(self, runtime: ContainerRuntime) -> Tools:
        paths, facts = self._config.paths, self._facts
        pauses = PauseProcesses(paths.run, runtime.cgroups, Parts(runtime.programs, runtime.facts, runtime.filters))
        downward = PodFacts(facts.name, facts.ip, "", facts.allocatable)
        return Tools(
            paths=paths,
            facts=facts,
            clock=self._clock,
            journal=self._journal,
            addresses=self._addresses,
            objects=self._objects,
            runtime=runtime,
            images=self._images,
            sandboxes=Sandboxes(paths.run, self._network, pauses),
            volumes=Volumes(paths.state, paths.run, host_path_allow=self._config.host_path_allow, facts=downward),
            reports=self._outbox,
            network_problem=self._network_problem,
            host_ports=HostPorts(self._proxy.set_host_ports),
            disk=self._disk,
            metrics=self._metrics,
            deadlines=Deadlines.within(self._config.runtime_timeout),
        )

    # ── the node ─────────────────────────────────────────────────────────────────────────────────────────────

    def _network_problem(self) -> str | None:
        dns = self._dns.problem if self._dns is not None else None
        return self._network.problem or self._proxy.problem or dns

    def _welcomed(self, welcome: Welcome) -> None:
        self._addresses.cidr = welcome.podCIDR
        self._receiver.membership = self._receiver.membership.given(welcome)
        self._follower.wake()
        self._report_now()

    def _programmed(self, done: Progress) -> None:
        frozen = sorted(done.frozen)
        mode = self._proxy.mode
        self._outbox.proxy(ProxyReport(programmedRevision=done.revision, mode=mode, error=done.error, frozen=frozen))

    def _report_now(self) -> None:
        self._said_at = 0.0
        self._look_now.set()

    _said_at = 0.0
    _said: object = None

    async def _report_node(self) -> None:
        """At connect, on change, and once a minute."""
        while True:
            problems = self._runtime_problem, self._network_problem()
            found = tuple(node_status.conditions(self._evictor.short, *problems, self._remark()))
            images = await self._images.listed()
            now = self._clock.now()
            if (found, images) != self._said or now - self._said_at >= NODE_REPORT:
                self._said, self._said_at = (found, images), now
                version = self._runtime_version()
                self._outbox.node(node_status.node(self._machine, version, now, found, self._since, images))
            try:
                async with asyncio.timeout(NODE_LOOK):
                    await self._look_now.wait()
            except TimeoutError:
                continue
            self._look_now.clear()

    def _remark(self) -> str:
        floor = -1000 if self._runtime is None else self._runtime.facts.oom_score_floor
        if floor <= LOWEST_OOM_SCORE:
            return ""
        return f"without CAP_SYS_RESOURCE no container's oom_score_adj can be below {floor}"

    def _runtime_version(self) -> str:
        if self._runtime is None:
            return ""
        return f"{self._runtime.programs.kind}://{self._runtime.programs.version}"

    async def _follow_clock(self, pods: Pods) -> None:
        while True:
            await asyncio.sleep(CLOCK_LOOK)
            if by := self._clock.follow():
                log.warning("the wall clock was set by %+.1f s: timers go on as before", by)
                pods.clock_stepped(by)

    async def _renew(self) -> None:
        """A new certificate at two thirds of the old one's life."""
        while True:
            identity = certificates.read(self._config.paths.pki)
            while (left := identity.renew_at - self._clock.now()) > 0:
                await asyncio.sleep(min(left, RENEW_LOOK))  # the clock may be set meanwhile
            try:
                await run_join(["--pki", str(self._config.paths.pki), "--renew"])
                log.info("certificate renewed")
            except CannotStart as error:
                log.error("cannot renew the certificate, which ends %s: %s", certificates.until(identity), error)
                await asyncio.sleep(RENEW_RETRY)


async def _network(config: Config) -> Network:
    try:
        settings = Settings(config.node_ip or None, config.closed, config.tunnel, config.vxlan_port)
        return await Network.open(config.paths.run, settings)
    except OSError as error:
        raise CannotStart(f"cannot open a netlink socket: {error}") from error


async def serve(config: Config) -> None:
    """Run the agent until SIGTERM or SIGINT. Raises CannotStart, TaskEnded."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config.paths.make()
    namespaces.ensure_private(config.paths.run)
    held = [lock(config.paths.lock), hold_network()]
    try:
        identity = await _unless(stop, identify(config))
        if identity is None:
            return
        machine = node_status.machine(
            identity.node, config.node_ip, config.paths.state, config.reserved, config.eviction_hard
        )
        journal = Journal(config.paths.boot_journal, config.paths.durable_journal, machine.boot_id)
        network = await _network(config)
        await Agent(config, machine, journal, network).run(stop)
    finally:
        for descriptor in held:
            os.close(descriptor)


async def _unless(stop: asyncio.Event, work: Awaitable[Identity]) -> Identity | None:
    """The outcome of `work`, None where `stop` came first."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stopped):
            one.cancel()

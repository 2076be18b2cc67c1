"""What the pod workers of one node share: the parts that do things, and the facts of the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from nodeagent.metrics import Metrics
from nodeagent.paths import Paths
from nodeagent.pods.addresses import Addresses
from nodeagent.pods.clock import Clock
from nodeagent.pods.disk import Disk
from nodeagent.pods.effects import Tell
from nodeagent.pods.hooking import Hooking
from nodeagent.pods.hostports import HostPorts
from nodeagent.pods.journal import Journal
from nodeagent.pods.netfiles import RESOLV_CONF, Naming
from nodeagent.pods.objects import Objects
from nodeagent.pods.prober import Prober
from nodeagent.pods.resolvconf import ClusterDns
from nodeagent.pods.state import PodState
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.volumes import Volumes
from nodeagent.sandbox.ipam import gateway
from nodeagent.sandbox.sandboxes import Sandboxes
from podplane.v1.pod_pb2 import Pod, PodStatus


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each step of a pod may take; a step that is late has failed and is tried again."""

    sandbox: float = 30.0
    volumes: float = 120.0
    pull: float = 1800.0
    create: float = 120.0
    start: float = 60.0
    signal: float = 10.0
    remove: float = 60.0

    @classmethod
    def within(cls, runtime: float) -> Self:
        """More than the runtime itself is given (`runtime`: seconds to create a container), also to take back what it
        has begun: it says what is late."""
        return cls(create=2 * runtime, start=runtime, remove=runtime)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Who this node is, and what pods may have of it. memory: bytes. hostname: the kernel's, `name` where not known."""

    name: str
    ip: str
    memory: int = 0
    allocatable: Mapping[str, str] = field(default_factory=dict)
    cgroup_root: str = "podplane"
    hostname: str = ""
    dns: ClusterDns = field(default_factory=ClusterDns)
    unsafe_sysctls: tuple[str, ...] = ()
    """Patterns of what pods may set beside the safe ones."""
    resolv_conf: Path = RESOLV_CONF
    """Names the node's own DNS servers."""


class Reports:
    """Where a worker says what became of its pod; the session takes it from here."""

    def status(self, state: PodState, status: PodStatus) -> None:
        """A transition, in order."""
        raise NotImplementedError

    def gone(self, state: PodState, status: PodStatus) -> None:
        """Nothing of the pod is left."""
        raise NotImplementedError

    def event(self, pod: Pod, tell: Tell) -> None:
        """A Kubernetes Event about the pod."""
        raise NotImplementedError


@dataclass(slots=True)
class Tools:
    """The parts. All workers share one of each."""

    paths: Paths
    facts: NodeFacts
    clock: Clock
    journal: Journal
    addresses: Addresses
    objects: Objects
    runtime: ContainerRuntime
    images: ImageStore
    sandboxes: Sandboxes
    volumes: Volumes
    reports: Reports
    network_problem: Callable[[], str | None] = lambda: None
    host_ports: HostPorts = field(default_factory=HostPorts)
    disk: Disk = field(default_factory=Disk)
    metrics: Metrics = field(default_factory=Metrics)
    deadlines: Deadlines = field(default_factory=Deadlines)
    prober: Prober = field(init=False)
    hooking: Hooking = field(init=False)

    @property
    def naming(self) -> Naming:
        """What names of pods are made of. Where pods have no other DNS, they ask the agent's own server."""
        facts, dns = self.facts, self.facts.dns
        if not dns.servers and self.addresses.cidr:
            dns = ClusterDns((str(gateway(self.addresses.cidr)),), dns.domain)
        return Naming(facts.hostname or facts.name, dns, facts.resolv_conf)

    def __post_init__(self) -> None:
        marks = self.paths.run / "probes"
        self.prober = Prober(self.runtime, self.clock, self.facts.ip, marks, self.metrics.probes)
        self.hooking = Hooking(self.paths.run / "hooks")

"""The flags of podplane-nodeagent and what they mean; podplane/options.py says where else they can be set.

Pure but for reading the environment. Fails with argparse's own message and exit status 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeagent.paths import Paths
from nodeagent.pressure.thresholds import (
    DEFAULT_EVICTION,
    DEFAULT_RESERVED,
    NOTHING,
    Reservation,
    Threshold,
    read_reservation,
    read_thresholds,
)
from nodeagent.proxy import modes
from nodeagent.runtime.image import Limits
from nodeagent.runtime.reclaim import Policy
from nodeagent.sandbox.guard import Closed
from nodeagent.sandbox.peers import MODES as TUNNELS
from nodeagent.sandbox.peers import PORT as VXLAN_PORT
from nodeagent.sandbox.sysctls import pattern_problem
from podplane import duration, names
from podplane.logging import FORMATS, LEVELS
from podplane.metrics_server import METRICS_HELP, metrics_address
from podplane.options import Flags, Options

DEFAULT_STATE = "/var/lib/podplane/nodeagent"
DEFAULT_RUN = "/run/podplane"
RUNTIMES = ("auto", "crun", "runc")
POD_ACCESS = ("metadata", "agent")

_EXAMPLES = """\
examples:
  podplane-nodeagent run --join 192.0.2.10:7443 --token-file join-token     the first time
  podplane-nodeagent run                                                    ever after
  podplane-nodeagent shutdown                                               end the pods' processes before a reboot
  podplane-nodeagent cleanup                                                remove every trace from this machine
"""


@dataclass(frozen=True, slots=True)
class Config:
    """What the agent runs with."""

    command: str
    paths: Paths
    node_name: str
    join: str = ""
    token_file: str = ""
    node_ip: str = ""
    runtime: str = "auto"
    runtime_timeout: float = 60.0
    """Seconds for the OCI runtime to create a container."""
    registries_conf: Path | None = None
    pulls: Limits = field(default_factory=Limits)
    image_gc: Policy = field(default_factory=Policy)
    host_path_allow: tuple[Path, ...] = ()
    host_image_hide: tuple[Path, ...] = ()
    cluster_dns: tuple[str, ...] = ()
    """Addresses of the cluster's DNS, which pods of dnsPolicy ClusterFirst ask; none: the agent's own server."""
    cluster_domain: str = "cluster.local"
    resolv_conf: Path = Path("/etc/resolv.conf")
    """The node's own servers, which the agent's DNS server asks; also for pods of dnsPolicy Default."""
    allowed_unsafe_sysctls: tuple[str, ...] = ()
    cgroup_root: str = "podplane"
    grace: float = 30.0
    """Seconds that containers have to end when the machine is shut down."""
    proxy_mode: str = "iptables"
    ipvs_scheduler: str = "rr"
    pod_pids_limit: int = 4096
    """Processes and threads of a pod; 0: no limit."""
    reserved: Reservation = NOTHING
    """What is kept for the system and for this agent."""
    eviction_hard: tuple[Threshold, ...] = ()
    pressure_transition: float = 300.0
    """Seconds for which a pressure condition stays after the pressure has gone."""
    metrics: tuple[str, int] | None = None
    """Host and port of /metrics."""
    tunnel: str = "auto"
    vxlan_port: int = VXLAN_PORT
    pod_access: frozenset[str] = frozenset()
    """What is closed to pods by default and open to them here: of POD_ACCESS."""
    log_level: str = "info"
    log_format: str = "text"

    @property
    def closed(self) -> Closed:
        """What pods may not reach. Loopback and IPv6 addresses are out of their reach anyway."""
        metadata = "metadata" not in self.pod_access
        if self.metrics is None or "agent" in self.pod_access:
            return Closed(metadata)
        address, port = ipaddress.ip_address(self.metrics[0]), self.metrics[1]
        if isinstance(address, ipaddress.IPv6Address) or address.is_loopback:
            return Closed(metadata)
        return Closed(metadata, ((None if address.is_unspecified else address, port),))


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Config:
    """The configuration; argparse ends the process where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="podplane-nodeagent",
        description="Runs pods on this machine for a Podplane control plane.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reader = Options(parser, os.environ if environment is None else environment)
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | shutdown | cleanup")
    run = reader.flags(commands.add_parser("run", help="run the agent; SIGTERM ends it, and the pods run on"))
    words = "end what runs in the pods, because this machine is about to stop; they run again after the boot"
    shutdown = reader.flags(commands.add_parser("shutdown", help=words))
    words = "seconds that containers have between being asked to end and being killed"
    shutdown.add("--grace", "30s", words, type=_explained(_not_negative), metavar="DURATION")
    words = "remove pods, network, rules, mounts and state from this machine, where no agent runs"
    cleanup = reader.flags(commands.add_parser("cleanup", help=words))
    for flags in (run, shutdown, cleanup):
        _common(flags)
    words = "how services become rules; auto: the fastest that works here"
    for flags in (run, cleanup):
        flags.add("--proxy-mode", "iptables", words, choices=modes.NAMES)
    _running(run)
    config = _config(reader.parse(argv))
    if config.image_gc.low >= config.image_gc.high:
        parser.error("--image-gc-low-threshold must be below --image-gc-high-threshold")
    return config


def _config(options: argparse.Namespace) -> Config:
    config = Config(
        command=options.command,
        paths=Paths(options.state_dir.absolute(), options.run_dir.absolute()),
        node_name="",
        runtime=options.runtime,
        cgroup_root=options.cgroup_root,
        log_level=options.log_level,
        log_format=options.log_format,
    )
    if options.command == "shutdown":
        return dataclasses.replace(config, grace=options.grace)
    config = dataclasses.replace(config, proxy_mode=options.proxy_mode)
    if options.command != "run":
        return config
    return dataclasses.replace(
        config,
        node_name=options.node_name,
        join=options.join,
        token_file=options.token_file,
        node_ip=options.node_ip,
        runtime_timeout=options.runtime_request_timeout,
        registries_conf=options.registries_conf,
        pulls=Limits(stall=options.image_pull_progress_deadline, parallel=options.max_parallel_image_pulls),
        image_gc=Policy(options.image_gc_high_threshold, options.image_gc_low_threshold, options.image_minimum_gc_age),
        host_path_allow=options.host_path_allow,
        allowed_unsafe_sysctls=options.allowed_unsafe_sysctls,
        cluster_dns=options.cluster_dns,
        cluster_domain=options.cluster_domain,
        resolv_conf=options.resolv_conf,
        host_image_hide=options.host_image_hide,
        pod_pids_limit=options.pod_pids_limit,
        reserved=options.system_reserved + options.kube_reserved,
        eviction_hard=options.eviction_hard,
        pressure_transition=options.eviction_pressure_transition_period,
        metrics=options.metrics_address,
        tunnel=options.tunnel,
        vxlan_port=options.vxlan_port,
        ipvs_scheduler=options.ipvs_scheduler,
        pod_access=options.pod_access,
    )


def _common(flags: Flags) -> None:
    flags.add("--state-dir", DEFAULT_STATE, "what outlives a reboot", type=Path)
    flags.add("--run-dir", DEFAULT_RUN, "what ends with the boot; a tmpfs", type=Path)
    flags.add("--runtime", "auto", "OCI runtime", choices=RUNTIMES)
    flags.add("--cgroup-root", "podplane", "cgroup below which pods have theirs", type=_cgroup, metavar="NAME")
    flags.add("--log-level", "info", "least severe level that is logged", choices=LEVELS)
    flags.add("--log-format", "text", "form of the log lines", choices=FORMATS)


def _running(flags: Flags) -> None:
    flags.add("--join", "", "HOST:PORT of the control plane; needed until the node has joined", metavar="ADDRESS")
    flags.add("--token-file", "", "file with the bootstrap token, or - for stdin; needed to join", metavar="F|-")
    flags.add("--node-name", socket.gethostname().lower(), "the node's name", type=_node_name)
    words = "the node's address; default: the source address of the default route"
    flags.add("--node-ip", "", words, type=_address)
    flags.add("--metrics-address", None, METRICS_HELP, type=metrics_address, metavar="HOST:PORT")
    words = "how mode ipvs chooses an endpoint"
    flags.add("--ipvs-scheduler", "rr", words, choices=modes.SCHEDULERS)
    words = (
        "when pods of other nodes are reached through VXLAN; auto: where the node is on no link of this one, and by a "
        "plain route otherwise"
    )
    flags.add("--tunnel", "auto", words, choices=TUNNELS)
    flags.add("--vxlan-port", VXLAN_PORT, "UDP port of VXLAN, the same on all nodes", type=_port, metavar="PORT")
    words = (
        "what is closed to pods otherwise, separated by commas: metadata (169.254.169.254, where clouds tell a machine "
        "its credentials), agent (the agents' metrics)"
    )
    flags.add("--pod-access", frozenset(), words, type=_pod_access, metavar="metadata,agent")
    flags.add("--registries-conf", None, "registries.conf(5); default: the system's", type=_file, metavar="FILE")
    words = (
        "hostPath volumes may only lie below these paths, separated by commas; default: anywhere but in the "
        "daemons' own directories"
    )
    flags.add("--host-path-allow", (), words, type=_paths, metavar="PATH,...")
    words = "sysctls that pods may set beside the safe ones, separated by commas; a * at the end stands for any rest"
    flags.add("--allowed-unsafe-sysctls", (), words, type=_sysctls, metavar="NAME,...")
    words = "addresses of the cluster's DNS for pods, separated by commas; default: the agent's own server"
    flags.add("--cluster-dns", (), words, type=_addresses, metavar="IP,...")
    flags.add("--cluster-domain", "cluster.local", "domain of services", type=_domain, metavar="NAME")
    words = "resolv.conf(5) of the servers that know all other names"
    flags.add("--resolv-conf", Path("/etc/resolv.conf"), words, type=Path, metavar="FILE")
    words = "further paths of this machine that containers of `image: host` may not see, separated by commas"
    flags.add("--host-image-hide", (), words, type=_paths, metavar="PATH,...")
    _images(flags)
    _resources(flags)


def _images(flags: Flags) -> None:
    flags.add(
        "--max-parallel-image-pulls", "4", "images that are downloaded at the same time", type=_count, metavar="N"
    )
    words = "how long a download may bring next to nothing before it is given up"
    flags.add("--image-pull-progress-deadline", "1m", words, type=_explained(_positive), metavar="DURATION")
    words = "percentage of the disk in use from which on unused images are removed; 100: never"
    flags.add("--image-gc-high-threshold", "85", words, type=_percentage, metavar="PERCENT")
    words = "percentage of the disk in use at which that stops"
    flags.add("--image-gc-low-threshold", "80", words, type=_percentage, metavar="PERCENT")
    words = "how long an image must have been unused to be removed"
    flags.add("--image-minimum-gc-age", "2m", words, type=_explained(_not_negative), metavar="DURATION")


def _resources(flags: Flags) -> None:
    """Named as the kubelet's."""
    words = "how long the OCI runtime may take to create a container; for its other tasks it has half of that or less"
    flags.add("--runtime-request-timeout", "1m", words, type=_explained(_positive), metavar="DURATION")
    words = "processes and threads that a pod may have; -1 for as many as the node has"
    flags.add("--pod-pids-limit", "4096", words, type=_pids_limit, metavar="N")
    words = "what of the node is kept from pods for the system: cpu, memory, ephemeral-storage, pid"
    flags.add("--system-reserved", "", words, type=_explained(read_reservation), metavar="NAME=QUANTITY,...")
    words = "the same for this agent and the runtime"
    flags.add(
        "--kube-reserved", DEFAULT_RESERVED, words, type=_explained(read_reservation), metavar="NAME=QUANTITY,..."
    )
    words = (
        "below which the node has pressure and evicts pods: memory.available, nodefs.available, nodefs.inodesFree, "
        "pid.available, each a quantity or a percentage; empty: never"
    )
    flags.add(
        "--eviction-hard", DEFAULT_EVICTION, words, type=_explained(read_thresholds), metavar="SIGNAL<QUANTITY,..."
    )
    words = "how long a pressure condition stays after the pressure has gone"
    flags.add("--eviction-pressure-transition-period", "5m", words, type=_explained(_not_negative), metavar="DURATION")


def _explained(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse keeps the words of ArgumentTypeError only."""

    def explained(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return explained


def _not_negative(text: str) -> float:
    seconds = duration.parse(text)
    if seconds < 0:
        raise ValueError(f"{text!r} must not be negative")
    return seconds


def _positive(text: str) -> float:
    seconds = duration.parse(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} must be more than 0")
    return seconds


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} must be from 1 to 1000")
    return int(text)


def _percentage(text: str) -> int:
    if not text.isdigit() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} must be from 0 to 100")
    return int(text)


def _pids_limit(text: str) -> int:
    if not text.lstrip("-").isdigit() or not -1 <= int(text) <= 4_194_304 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be -1, or from 1 to 4194304")
    return max(0, int(text))


def _node_name(text: str) -> str:
    if wrong := names.dns_subdomain(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a node's name: {'; '.join(wrong)}")
    return text


def _cgroup(text: str) -> str:
    if not text or "/" in text or text.startswith("."):
        raise argparse.ArgumentTypeError(f"{text!r} must be one name, without a slash")
    return text


def _address(text: str) -> str:
    if not text:
        return text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(_address(part.strip()) for part in text.split(",") if part.strip())


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port, 1 to 65535")
    return int(text)


def _pod_access(text: str) -> frozenset[str]:
    asked = frozenset(part for part in text.split(",") if part)
    if unknown := sorted(asked - set(POD_ACCESS)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(POD_ACCESS)}")
    return asked


def _sysctls(text: str) -> tuple[str, ...]:
    patterns = tuple(part.strip() for part in text.split(",") if part.strip())
    for pattern in patterns:
        if problem := pattern_problem(pattern):
            raise argparse.ArgumentTypeError(problem)
    return patterns


def _domain(text: str) -> str:
    if wrong := names.dns_subdomain(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a domain: {'; '.join(wrong)}")
    return text


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return path


def _paths(text: str) -> tuple[Path, ...]:
    paths = tuple(Path(part) for part in text.split(",") if part)
    for path in paths:
        if not path.is_absolute() or ".." in path.parts:
            raise argparse.ArgumentTypeError(f"{path} must be absolute, without ..")
    return paths

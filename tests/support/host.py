"""One node, seen from outside: what of pods is in its namespaces, cgroups, mounts, rules, directories. Only reads."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from devcluster.cluster import Cluster
from devcluster.commands import run
from devcluster.proc import command_line, inside, pids
from tests.support.counters import descriptors

UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"(?<![\d.])\d+\.\d+\.\d+\.\d+(?![\d./])")
_WALKS = 20
_CGROUPS = Path("/sys/fs/cgroup")


class Host:
    """The node."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._cluster, self._node = cluster, node
        holder = cluster.holder(node)
        self._spaces = [holder.namespace("mnt")]
        self.network = holder.namespace("net")
        self._mounts = Path(f"/proc/{holder.pid}/mounts")
        self._run = Path(f"/proc/{holder.pid}/root/run/podplane")
        self._state = cluster.root / node
        self._cgroup = cluster.cgroup(node)

    def instances(self) -> dict[tuple[str, str], set[str]]:
        """(pod uid, container) -> the instances with a process now."""
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for procs in self._groups("pod*/*/cgroup.procs"):
            try:
                if procs.read_text().strip():
                    container, _, attempt = procs.parent.name.rpartition("_")
                    found[procs.parent.parent.name.removeprefix("pod"), container].add(attempt)
            except OSError:  # removed while it was read
                continue
        return found

    def begun(self, uid: str, container: str) -> int:
        """How many instances of a container have written something."""
        logs = self._state.glob(f"logs/*_{uid}/{container}/*.log")
        return sum(1 for log in logs if log.stat().st_size)

    def traces(self) -> Iterator[tuple[str, str]]:
        """(pod uid, what there is of it): everything on the node that names a pod."""
        for line in self._mounts.read_text().splitlines():
            point = Path(line.split()[1])
            if point.is_relative_to("/run/podplane") or point.is_relative_to(self._state):
                yield from _named("mount", str(point))
        for root in (self._run, self._state):
            for path in _entries(root):
                yield from _named("file", str(path.relative_to(root)))
        for group in self._groups("pod*"):
            yield from _named("cgroup", str(group))
        for pid, words in self._programs():
            yield from _named("process", f"{pid} {' '.join(words)}")

    def links(self) -> tuple[int, list[str]]:
        """How many sandboxes have a network of their own, and the node's pod links."""
        pins = sum(1 for path in self._run.glob("sandboxes/*/net") if not path.is_dir())
        lines = run(self._cluster.inside(self._node, ["ip", "-o", "link"])).splitlines()
        names = [line.split()[1].split("@")[0].rstrip(":") for line in lines]
        return pins, [name for name in names if name.startswith("pp")]

    def addresses(self, network: str) -> set[str]:
        """Which addresses of `network` (CIDR) the node's rules for IPv4 name. The bridge's always name all of them."""
        rules = run(self._cluster.inside(self._node, ["nft", "--stateless", "list", "ruleset", "ip"]))
        pods = ipaddress.ip_network(network)
        return {found for found in _ADDRESS.findall(rules) if ipaddress.ip_address(found) in pods}

    def zombies(self) -> list[str]:
        """What the agent or a conmon has not waited for."""
        parents = {pid for pid, _ in self._programs()}
        if agent := self._cluster.process(self._node):
            parents.add(agent.pid)
        return [f"{pid} of {parent}" for pid, parent, state in family() if state == "Z" and parent in parents]

    def descriptors(self) -> dict[str, int]:
        """How many of each kind the agent has; none where there is no agent."""
        with contextlib.suppress(FileNotFoundError):  # it has just died
            if agent := self._cluster.process(self._node):
                return descriptors(agent.pid)
        return {}

    def halves(self) -> list[str]:
        """What pulls have begun."""
        return sorted(path.name for path in (self._state / "images" / "tmp").glob("*"))

    def _groups(self, pattern: str) -> list[Path]:
        """Of guaranteed pods, and of those in the cgroup of their class."""
        return [found for above in ("", "*/") for found in _cgroups(f"*/{self._cgroup}/{above}{pattern}")]

    def _programs(self) -> Iterator[tuple[int, list[str]]]:
        for pid in pids():
            words = command_line(pid)
            if words and words[0].endswith(("conmon", "crun", "runc")) and inside(pid, self._spaces):
                yield pid, words


def family() -> Iterator[tuple[int, int, str]]:
    """(pid, its parent, its state) of every process."""
    for pid in pids():
        with contextlib.suppress(OSError):
            state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            yield pid, int(parent), state


def _entries(directory: Path, depth: int = 4) -> Iterator[Path]:
    """What is in a directory and below, but not below what names a pod: a root filesystem may be mounted there."""
    try:
        entries = list(os.scandir(directory))
    except OSError:  # removed while it was read
        return
    for entry in entries:
        path = Path(entry.path)
        yield path
        if depth and entry.is_dir(follow_symlinks=False) and not UID.search(entry.name):
            yield from _entries(path, depth - 1)


def _cgroups(pattern: str) -> list[Path]:
    """What matches now. A cgroup that goes while the tree is walked ends the walk: then it is walked again."""
    for _ in range(_WALKS):
        with contextlib.suppress(FileNotFoundError):
            return list(_CGROUPS.glob(pattern))
    raise RuntimeError(f"{_CGROUPS}/{pattern} changed during each of {_WALKS} walks")


def _named(kind: str, text: str) -> Iterator[tuple[str, str]]:
    for uid in set(UID.findall(text)):
        yield uid, f"{kind} {text}"

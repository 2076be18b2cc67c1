"""The ledger that must balance after every fault, kept by a process of its own that no daemon knows of.

    python -m tests.support.ledger CLUSTER_DIRECTORY NODE

Follows every pod over a watch and looks at the node's processes all the time; for each line on its input it holds the
API against the host and answers with a line of JSON: {"happened": what went wrong since the last line, "now": what
does not balance at present}; both are empty where all is well.

- L3 a pod's revisions rise without a double, its restart counts and its phase never go back;
- L4 no pod uid and container name has two instances with processes at one time;
- L5 an instance has one terminal record that never changes, 0 only with the reason Completed, and what the pod's
  annotations `ledger/<container>` expect (an exit code);
- L6 a container begins as often as its restart count says, which for a pod with such annotations stays 0;
- L7 everything on the node that is a pod's (pins, links, mounts, cgroups, conmon, addresses, directories, files) is a
  pod's that the API knows.

What is on its way out may be in "now" for a moment. Never changes anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from devcluster.cluster import Cluster
from devcluster.commands import run
from devcluster.proc import command_line, inside, pids
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api

UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LONGEST = 4 * 3600.0
"""Seconds for which a ledger can be kept."""
_PHASES = ("", "Pending", "Running", "Succeeded", "Failed")
_ENDS = {"Succeeded", "Failed"}
_ANNOTATION = "ledger/"
_WALKS = 20
_CGROUPS = Path("/sys/fs/cgroup")


class History:
    """What the API has said of the pods, event by event."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._revision: dict[str, int] = {}
        self._phase: dict[str, str] = {}
        self._restarts: dict[tuple[str, str], int] = {}
        self._ends: dict[str, tuple[int, str]] = {}
        self._begun: dict[str, set[str]] = defaultdict(set)

    def take(self, kind: str, pod: pod_pb2.Pod) -> None:
        """One event of a watch, in order."""
        name, uid = pod.metadata.name, pod.metadata.uid
        revision = int(pod.metadata.resourceVersion)
        if revision <= self._revision.get(uid, 0):
            self.wrong.append(f"L3 {name}: revision {revision} after {self._revision[uid]}")
        self._revision[uid] = revision
        self._forward(pod)
        for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses):
            self._restart(pod, status)
            for state in (status.state, status.lastState):
                if state.HasField("running"):
                    self._begun[uid].add(status.containerID)
                if state.HasField("terminated"):
                    self._end(pod, status.name, state.terminated)
        if kind == "DELETED":
            for id_ in self._begun.pop(uid, set()):
                if id_ not in self._ends:
                    self.wrong.append(f"L5 {name}: {id_} ran and was deleted without a terminal record")

    def _forward(self, pod: pod_pb2.Pod) -> None:
        uid, phase = pod.metadata.uid, pod.status.phase
        before = self._phase.get(uid, "")
        if _PHASES.index(phase) < _PHASES.index(before) or (before in _ENDS and phase != before):
            self.wrong.append(f"L3 {pod.metadata.name}: phase {phase} after {before}")
        self._phase[uid] = phase

    def _restart(self, pod: pod_pb2.Pod, status: pod_pb2.ContainerStatus) -> None:
        key = pod.metadata.uid, status.name
        before = self._restarts.get(key, 0)
        if status.restartCount < before:
            self.wrong.append(f"L3 {pod.metadata.name}/{status.name}: {status.restartCount} restarts after {before}")
        if status.restartCount and f"{_ANNOTATION}{status.name}" in pod.metadata.annotations and not before:
            self.wrong.append(f"L6 {pod.metadata.name}/{status.name}: restarted without a reason")
        self._restarts[key] = status.restartCount

    def _end(self, pod: pod_pb2.Pod, container: str, end: pod_pb2.ContainerStateTerminated) -> None:
        title = f"{pod.metadata.name}/{container}"
        expected = pod.metadata.annotations.get(f"{_ANNOTATION}{container}")
        found = (end.exitCode, end.reason)
        before = self._ends.setdefault(end.containerID, found)
        if before != found:
            self.wrong.append(f"L5 {title}: ended with {found} after {before}")
        elif end.exitCode == 0 and end.reason != "Completed":
            self.wrong.append(f"L5 {title}: exit code 0 with the reason {end.reason}")
        elif expected is not None and (end.exitCode != int(expected) or end.reason == "ContainerStatusUnknown"):
            self.wrong.append(f"L5 {title}: ended with {found}, not {expected}")


class Host:
    """One node, from outside: its namespaces, cgroups and directories."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._cluster, self._node = cluster, node
        holder = cluster.holder(node)
        self._spaces = [holder.namespace("mnt")]
        self._mounts = Path(f"/proc/{holder.pid}/mounts")
        self._run = Path(f"/proc/{holder.pid}/root/run/podplane")
        self._state = cluster.root / node
        self._cgroup = cluster.cgroup(node)

    def instances(self) -> dict[tuple[str, str], set[str]]:
        """(pod uid, container) -> the instances with a process now."""
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for procs in _cgroups(f"*/{self._cgroup}/*/pod*/*/cgroup.procs"):
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
        for group in _cgroups(f"*/{self._cgroup}/*/pod*"):
            yield from _named("cgroup", str(group))
        for pid in pids():
            words = command_line(pid)
            if words and words[0].endswith(("conmon", "crun", "runc")) and inside(pid, self._spaces):
                yield from _named("process", f"{pid} {' '.join(words)}")

    def links(self) -> tuple[int, list[str]]:
        """How many sandboxes have a network of their own, and the node's pod links."""
        pins = sum(1 for path in self._run.glob("sandboxes/*/net") if not path.is_dir())
        lines = run(self._cluster.inside(self._node, ["ip", "-o", "link"])).splitlines()
        names = [line.split()[1].split("@")[0].rstrip(":") for line in lines]
        return pins, [name for name in names if name.startswith("pp")]


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


class Ledger:
    """Follows one node of one cluster."""

    def __init__(self, cluster: Cluster, node: str, api: Api) -> None:
        self._api, self._node = api, node
        self._host = Host(cluster, node)
        self._history = History()
        self._doubles: dict[str, None] = {}
        self._taken = 0
        self._watch = api.watch(POD, seconds=LONGEST)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            for (uid, container), attempts in self._host.instances().items():
                if len(attempts) > 1:
                    self._doubles[f"L4 pod {uid}: {container} has the instances {sorted(attempts)}"] = None
            time.sleep(0.02)

    def balance(self) -> dict[str, list[str]]:
        """What happened since the last time, and what does not balance now."""
        pods = {pod.metadata.uid: pod for pod in self._api.list(POD)}
        self._follow(max((int(pod.metadata.resourceVersion) for pod in pods.values()), default=0))
        wrong: list[str] = []
        for pod in pods.values():
            wrong += self._restarted(pod)
        known = {uid for uid, pod in pods.items() if pod.spec.nodeName == self._node}
        wrong += sorted({f"L7 left over: {what}" for uid, what in self._host.traces() if uid not in known})
        pins, links = self._host.links()
        if len(links) != pins:
            wrong.append(f"L7 {pins} sandboxes with a network, and the links {links}")
        happened, self._history.wrong = [*self._history.wrong, *self._doubles], []
        self._doubles = {}
        return {"happened": happened, "now": wrong}

    def _follow(self, revision: int) -> None:
        """Take in what the watch has brought, which is at least up to `revision`."""
        deadline = time.monotonic() + 5
        while True:
            events = self._watch.events
            for event in events[self._taken :]:
                if event.type != "BOOKMARK":
                    self._history.take(event.type, event.object)
            self._taken = len(events)
            newest = max((int(event.object.metadata.resourceVersion or 0) for event in events), default=0)
            if newest >= revision:
                return
            assert time.monotonic() < deadline, f"the watch is at {newest}, the API at {revision}"
            time.sleep(0.01)

    def _restarted(self, pod: pod_pb2.Pod) -> Iterator[str]:
        for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses):
            begun = self._host.begun(pod.metadata.uid, status.name)
            if begun > status.restartCount + 1:
                title = f"{pod.metadata.name}/{status.name}"
                yield f"L6 {title}: {begun} instances began, {status.restartCount} restarts are told"


def main(root: str, node: str) -> None:
    """A balance for each line of the input."""
    cluster = Cluster(Path(root))
    with Api(cluster.server, cluster.certificate_authority, cluster.token_file.read_text()) as api:
        ledger = Ledger(cluster, node, api)
        for _line in sys.stdin:
            print(json.dumps(ledger.balance()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

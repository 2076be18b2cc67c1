"""The ledger that must balance after every fault, kept by a process of its own that no daemon knows of.

    python -m tests.support.ledger CLUSTER_DIRECTORY NODE

Follows every pod over a watch and looks at the node's processes all the time. For each line on its input it holds the
API against the host and answers with a line of JSON: {"happened": what went wrong since the last line, "now": what
does not balance at present}; both are empty where all is well. `settle` is answered once all balances and every pod
has come to where it gets, or when that took too long. The end of the input is answered too.

- L3 a pod's revisions rise without a double, its restart counts and its phase never go back;
- L4 no pod uid and container name has two instances with processes at one time;
- L5 an instance has one terminal record that never changes, 0 only with the reason Completed, and what the pod's
  annotations `ledger/<container>` expect (an exit code);
- L6 a container begins as often as its restart count says, which for a pod with such annotations stays 0;
- L7 everything on the node that is a pod's (pins, links, mounts, cgroups, conmon, addresses in rules, directories,
  files) is a pod's that the API knows, no pull is left half done, no child unreaped, and with the pods of the
  beginning the agent has no more descriptors than it had then;
- L8 no secret of the API with a value of some length is on the node's disk, in a daemon's log, in an argument or in a
  pod as the API shows it;
- L9 a pod with the annotation `ledger-serves` (a port) answers every request from when it is ready until it is deleted;
- L10 what is to settle does so within 10 s of a machine that has nothing else to do.

L1 and L2 are the store's: tests/support/writer.py. What is on its way out may be in "now" for a moment. Never changes
anything.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from devcluster.cluster import Cluster
from devcluster.proc import command_line, pids
from podplane.kinds import NODE, POD, SECRET
from podplane.statuses import shown
from podplane.v1 import pod_pb2
from tests.support.api import Api, is_ready
from tests.support.host import Host
from tests.support.leaks import found_in, holding
from tests.support.load import Load
from tests.support.waiting import patient

LONGEST = 4 * 3600.0
"""Seconds for which a ledger can be kept."""
SETTLED = 10.0
SECRET_LENGTH = 12
"""Bytes from which on a value occurs nowhere by chance."""
SERVES = "ledger-serves"
_PHASES = ("", "Pending", "Running", "Succeeded", "Failed")
_ENDS = {"Succeeded", "Failed"}
_ANNOTATION = "ledger/"

Balance = dict[str, list[str]]


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


class Serving:
    """Requests to one pod, from its node, as long as it is to serve."""

    def __init__(self, name: str, address: str, port: int, network: Path) -> None:
        self._name, self._told = name, 0
        self._load = Load(port, [address], workers=1, pin=network, pause=0.05)

    @property
    def done(self) -> int:
        """How many have ended."""
        return self._load.done

    def wrong(self) -> list[str]:
        """What has failed since the last time."""
        return self._tell(self._load.counted)

    def end(self) -> list[str]:
        """The same, once what is under way has ended."""
        return self._tell(self._load.end())

    def _tell(self, counted: dict[str, Any]) -> list[str]:
        more, self._told = counted["failed"] - self._told, counted["failed"]
        return [f"L9 {self._name}: {more} requests failed: {counted['words']}"] if more else []


class Ledger:
    """Follows one node of one cluster."""

    def __init__(self, cluster: Cluster, node: str, api: Api) -> None:
        self._api, self._node, self._root = api, node, cluster.root
        self._host = Host(cluster, node)
        self._history = History()
        self._doubles: dict[str, None] = {}
        self._taken = 0
        self._first: tuple[set[str], dict[str, int]] | None = None
        self._searched = 0.0
        self._serving: dict[str, Serving] = {}
        self._watch = api.watch(POD, seconds=LONGEST)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            for (uid, container), attempts in self._host.instances().items():
                if len(attempts) > 1:
                    self._doubles[f"L4 pod {uid}: {container} has the instances {sorted(attempts)}"] = None
            time.sleep(0.02)

    def balance(self) -> Balance:
        """What happened since the last time, and what does not balance now."""
        pods = {pod.metadata.uid: pod for pod in self._api.list(POD)}
        self._follow(max((int(pod.metadata.resourceVersion) for pod in pods.values()), default=0))
        wrong = [words for pod in pods.values() for words in self._restarted(pod)]
        known = {uid: pod for uid, pod in pods.items() if pod.spec.nodeName == self._node}
        wrong += self._left(known)
        self._history.wrong += [*self._doubles, *self._leaks(list(pods.values())), *self._failures(pods)]
        self._doubles = {}
        happened, self._history.wrong = self._history.wrong, []
        return {"happened": happened, "now": wrong}

    def settle(self) -> Balance:
        """The balance once all is well; or what is not, after what L10 allows."""
        began = time.monotonic()
        happened: list[str] = []
        while True:
            late = time.monotonic() - began > limit()
            busy = [f"L10 {pod.metadata.name} is {shown(pod)}" for pod in self._api.list(POD) if not is_settled(pod)]
            if late or not busy:  # a balance costs 50 ms of CPU, which what is still busy may need
                found = self.balance()
                happened += found["happened"]
                if late or not found["now"]:
                    return {"happened": happened, "now": [*found["now"], *busy]}
            time.sleep(0.05)

    def close(self) -> Balance:
        """The last balance."""
        found = self.balance()
        found["happened"] += [words for serving in self._serving.values() for words in serving.end()]
        return found

    def _left(self, known: Mapping[str, pod_pb2.Pod]) -> list[str]:
        wrong = sorted({f"L7 left over: {what}" for uid, what in self._host.traces() if uid not in known})
        pins, links = self._host.links()
        if len(links) != pins:
            wrong.append(f"L7 {pins} sandboxes with a network, and the links {links}")
        network = ipaddress.ip_network(self._api.get(NODE, self._node, "").spec.podCIDR)
        there = {pod.status.podIP for pod in known.values()} | {str(network[0]), str(network[1]), str(network[-1])}
        wrong += [f"L7 a rule for {address}" for address in sorted(self._host.addresses(str(network)) - there)]
        wrong += [f"L7 zombie: {what}" for what in self._host.zombies()]
        wrong += [f"L7 half an image: {what}" for what in self._host.halves() if all(map(is_settled, known.values()))]
        return wrong or self._descriptors(set(known))

    def _descriptors(self, known: set[str]) -> list[str]:
        found = self._host.descriptors()
        if not found:
            return []
        self._first = self._first or (known, found)
        uids, first = self._first
        if known != uids:
            return []
        return [f"L7 descriptors: {found[kind]} of {kind}, {first.get(kind, 0)} at first"
                for kind in found if found[kind] > first.get(kind, 0)]  # fmt: skip

    def _leaks(self, pods: Sequence[pod_pb2.Pod]) -> Iterator[str]:
        """Of secrets, in what has changed since the last time."""
        canaries = {f"{secret.metadata.name}/{key}": value.decode(errors="ignore") for secret in self._api.list(SECRET)
                    for key, value in secret.data.items() if len(value) >= SECRET_LENGTH}  # fmt: skip
        since, self._searched = self._searched, time.time() - 1
        for path, what in holding(self._root, canaries, but=(self._root / "controlplane",), since=since):
            yield f"L8 {what} is in {path}"
        for pod in pods:
            yield from (
                f"L8 {what} is in pod {pod.metadata.name}" for what in found_in(pod.SerializeToString(), canaries)
            )
        for pid in pids():
            words = command_line(pid)
            yield from (
                f"L8 {what} is in {words[0]}'s arguments" for what in found_in(" ".join(words).encode(), canaries)
            )

    def _failures(self, pods: Mapping[str, pod_pb2.Pod]) -> Iterator[str]:
        """Of requests, and begin to ask who serves from now on."""
        for uid, pod in pods.items():
            port = pod.metadata.annotations.get(SERVES)
            if port and uid not in self._serving and is_ready(pod):
                self._serving[uid] = Serving(pod.metadata.name, pod.status.podIP, int(port), self._host.network)
        for uid in [
            uid for uid in self._serving if uid not in pods or pods[uid].metadata.HasField("deletionTimestamp")
        ]:
            self._serving.pop(uid).end()
        for serving in self._serving.values():
            yield from serving.wrong()

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


def limit() -> float:
    """Seconds that L10 allows now: a busy machine gives its daemons only their share."""
    return patient(SETTLED) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def is_settled(pod: pod_pb2.Pod) -> bool:
    """Whether a pod is where it gets by itself: nothing of it is on its way."""
    return not pod.metadata.HasField("deletionTimestamp") and (pod.status.phase in _ENDS or is_ready(pod))


def main(root: str, node: str) -> None:
    """A balance for each line of the input, and for its end."""
    cluster = Cluster(Path(root))
    with Api(cluster.server, cluster.certificate_authority, cluster.token_file.read_text()) as api:
        ledger = Ledger(cluster, node, api)
        for line in sys.stdin:
            print(json.dumps(ledger.settle() if line.strip() == "settle" else ledger.balance()), flush=True)
        print(json.dumps(ledger.close()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The agent dies; pods do not notice, and what happened meanwhile is told truthfully (ledger L4-L7, L9)."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.commands import run
from podplane.kinds import POD, SERVICE
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.host import Host
from tests.support.network import connects
from tests.support.objects import manifest, pod
from tests.support.waiting import eventually

SERVICE_TEXT = """
apiVersion: v1
kind: Service
metadata: {name: steady, namespace: default}
spec:
  type: NodePort
  selector: {app: steady}
  ports: [{port: 80, targetPort: 80, nodePort: 30333}]
"""
NODE = "node-1"
FLAG = "/run/end-of-mortal"


class Load:
    """Requests on new connections at a fixed rate through a NodePort; counts the failed ones."""

    def __init__(self, address: str, port: int, requests: int, rate: float) -> None:
        self._target = (address, port)
        self._requests, self._rate = requests, rate
        self.failed: list[str] = []
        self.done = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        for number in range(self._requests):
            time.sleep(max(0.0, begun + number / self._rate - time.monotonic()))
            self._one()
            self.done += 1

    def _one(self) -> None:
        connection = http.client.HTTPConnection(*self._target, timeout=3)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            if (answer.status, answer.read()) != (200, b"steady\n"):
                self.failed.append(f"status {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(repr(error))
        finally:
            connection.close()

    def join(self) -> None:
        self._thread.join(timeout=120)
        assert not self._thread.is_alive(), "the load did not end"


@pytest.fixture
def ten(cluster: Cluster, api: Api) -> Iterator[list[str]]:
    """Ten web servers on one node behind a NodePort, and one that waits to be told to end."""
    serve = "mkdir -p /tmp/w; echo steady >/tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"
    names = [f"steady-{number}" for number in range(10)]
    for name in names:
        made = pod(name, "/bin/sh", "-c", serve, nodeSelector={"kubernetes.io/hostname": NODE})
        made.metadata.labels["app"] = "steady"
        api.create(made)
    api.create(manifest(SERVICE_TEXT)[0])
    for name in names:
        address = api.running(name).status.podIP
        # Running is not listening yet, and nothing here says when a server is ready.
        eventually(lambda address=address: connects(cluster, NODE, address, 80), 10)  # type: ignore[misc]
    eventually(lambda: connects(cluster, NODE, cluster.node_address("node-2"), 30333), 10, "the NodePort of node-2")
    yield names
    api.delete(SERVICE, "steady")
    for name in names:
        api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name)


@pytest.mark.timeout(180)
def test_a_killed_agent_costs_no_request_no_restart_and_no_exit_code(
    cluster: Cluster, api: Api, ten: list[str]
) -> None:
    mortal = pod("mortal", "/bin/sh", "-c", f"while [ ! -e {FLAG} ]; do sleep 0.1; done; exit 7",
                 nodeSelector={"kubernetes.io/hostname": NODE}, restartPolicy="Never")  # fmt: skip
    uid = api.create(mortal).metadata.uid
    api.running("mortal")
    before = {name: facts(api.get(POD, name)) for name in ten}
    inside = cluster.container_pids()
    load = Load(cluster.node_address("node-2"), 30333, requests=1000, rate=50)
    try:
        eventually(lambda: load.done > 100, 30)
        cluster.kill(NODE)
        touch(cluster, uid, FLAG)
        eventually(lambda: len(cluster.container_pids()) < len(inside), 15, "the end of the mortal container")
        cluster.start_node(NODE)
        ended = api.pod_when("mortal", lambda found: found.status.phase == "Failed")
        terminated = ended.status.containerStatuses[0].state.terminated
        assert (terminated.exitCode, terminated.reason) == (7, "Error")
        load.join()
        assert load.failed == []
        after = {name: facts(api.running(name)) for name in ten}
        assert after == before
        assert cluster.container_pids() < inside
    finally:
        load.join()
        api.delete(POD, "mortal", grace=0)
        api.gone(POD, "mortal")


def facts(found: pod_pb2.Pod) -> tuple[str, int, str]:
    """What a restart would change: container id, restart count and start time."""
    status = found.status.containerStatuses[0]
    return status.containerID, status.restartCount, status.state.running.startedAt.ToJsonString()


MORTALS = {
    "zero": ("exit 0", 0, "Completed"),
    "seven": ("exit 7", 7, "Error"),
    "killed": ("kill -9 $$$$", 137, "Error"),
    "hungry": ("exec /usr/bin/python3 -S -c 'bytearray(300 << 20)'", 137, "OOMKilled"),
    "again": ("exit 3", 3, "Error"),
}
"""What each does while its agent is dead, the code and reason told afterwards; `$$` in a command is a $."""


@pytest.fixture
def mortals(api: Api) -> Iterator[dict[str, str]]:
    """Pods that wait to be told to end, by name their uids; only `again` is to be restarted."""
    uids = {}
    for name, (end, _code, _reason) in MORTALS.items():
        made = pod(name, "/bin/sh", "-c", f"echo begun; until [ -e {FLAG} ]; do sleep 0.05; done; {end}",
                   nodeName=NODE, restartPolicy="Always" if name == "again" else "Never",
                   # The first process of a namespace is deaf to its own SIGKILL.
                   shareProcessNamespace=name == "killed", terminationGracePeriodSeconds=0)  # fmt: skip
        made.spec.containers[0].resources.limits["memory"] = "40Mi"
        uids[name] = api.create(made).metadata.uid
    for name in uids:
        api.running(name)
    yield uids
    for name in uids:
        api.delete(POD, name, grace=0)
    for name in uids:
        api.gone(POD, name)


def test_ends_without_an_agent_are_told_exactly_and_restarted_once(
    cluster: Cluster, api: Api, mortals: dict[str, str]
) -> None:
    cluster.kill(NODE)
    died = time.time()
    for uid in mortals.values():
        touch(cluster, uid, FLAG)
    exits = Path(f"/proc/{cluster.holder(NODE).pid}/root/run/podplane/exits")
    ends = [exits / f"{uid}_main_0" for uid in mortals.values()]
    eventually(lambda: all(end.exists() for end in ends), 15, "the ends of the mortals")
    returned = time.time()
    cluster.start_node(NODE)
    for name, (_end, code, reason) in MORTALS.items():
        found = api.pod_when(name, lambda found: found.status.phase in ("Succeeded", "Failed") or _restarts(found))
        status = found.status.containerStatuses[0]
        end = status.lastState.terminated if name == "again" else status.state.terminated
        assert (end.exitCode, end.reason) == (code, reason), (name, api.logs(name))
        assert died < end.finishedAt.ToNanoseconds() / 1e9 < returned, name
        assert status.restartCount == (name == "again"), name
    again = api.running("again").status.containerStatuses[0]
    assert again.restartCount == 1
    logs = cluster.root / NODE / "logs" / f"default_again_{mortals['again']}" / "main"
    eventually(lambda: (logs / "1.log").stat().st_size, 15, "the first word of the second instance")
    assert sorted(log.name for log in logs.glob("*.log") if log.stat().st_size) == ["0.log", "1.log"]


def test_a_pod_deleted_by_force_without_an_agent_is_cleared_away_on_its_return(cluster: Cluster, api: Api) -> None:
    made = pod("forgotten", nodeName=NODE, shareProcessNamespace=True)
    made.spec.containers[0].ports.add(containerPort=80, hostPort=30555)
    made.spec.volumes.add(name="memory").emptyDir.medium = "Memory"
    made.spec.containers[0].volumeMounts.add(name="memory", mountPath="/memory")
    host = Host(cluster, NODE)
    rules = ["nft", "list", "ruleset"]
    uid = api.create(made).metadata.uid
    api.running("forgotten")
    eventually(lambda: "30555" in run(cluster.inside(NODE, rules)), 10, "the rule of the host port")
    cluster.kill(NODE)
    api.delete(POD, "forgotten", grace=0)
    assert api.find(POD, "forgotten") is None
    assert processes(cluster, uid)
    cluster.start_node(NODE)
    eventually(lambda: [what for of, what in host.traces() if of == uid] == [], 15, "a node without a trace of it")
    assert processes(cluster, uid) == []
    pins, links = host.links()
    assert len(links) == pins
    eventually(lambda: "30555" not in run(cluster.inside(NODE, rules)), 10, "the end of the rule")


def _restarts(found: pod_pb2.Pod) -> int:
    return found.status.containerStatuses[0].restartCount


def processes(cluster: Cluster, uid: str) -> list[int]:
    """What runs in the container `main` of a pod."""
    found = []
    for pid in cluster.container_pids():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if f"/pod{uid}/main_" in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(pid)
    return found


def touch(cluster: Cluster, uid: str, path: str) -> None:
    """Make a file inside a pod's container: through the root of one of its processes."""
    for pid in processes(cluster, uid):
        with contextlib.suppress(FileNotFoundError):  # a sleep that is over
            Path(f"/proc/{pid}/root{path}").touch()
            return
    raise AssertionError(f"no process of pod {uid}")

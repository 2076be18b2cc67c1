"""The agent dies; pods do not notice, and what happened meanwhile is told truthfully (ledger L4-L7, L9)."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD, SERVICE
from podplane.v1 import pod_pb2
from tests.support.api import Api
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
    flag = "/run/end-of-mortal"
    mortal = pod("mortal", "/bin/sh", "-c", f"while [ ! -e {flag} ]; do sleep 0.1; done; exit 7",
                 nodeSelector={"kubernetes.io/hostname": NODE}, restartPolicy="Never")  # fmt: skip
    api.create(mortal)
    api.running("mortal")
    before = {name: facts(api.get(POD, name)) for name in ten}
    inside = cluster.container_pids()
    load = Load(cluster.node_address("node-2"), 30333, requests=1000, rate=50)
    try:
        eventually(lambda: load.done > 100, 30)
        cluster.kill(NODE)
        _touch(cluster, api.get(POD, "mortal"), flag)
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


def _touch(cluster: Cluster, found: pod_pb2.Pod, path: str) -> None:
    """Make a file inside a container: through the root of one of its processes."""
    uid = found.metadata.uid
    for pid in cluster.container_pids():
        with open(f"/proc/{pid}/cgroup") as file:
            if uid in file.read():
                with open(f"/proc/{pid}/root{path}", "w"):
                    return
    raise AssertionError(f"no process of pod {found.metadata.name}")

"""The machine is about to stop: what runs in its pods ends, and is told and restarted when an agent is back."""

from __future__ import annotations

import subprocess

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

NODE = "node-3"
POLITE = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"


def _shutdown(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    state, program = cluster.root / NODE, cluster.podctl.with_name("podplane-nodeagent")
    argv: list[str] = [str(program), "shutdown", "--grace", "1s", "--state-dir", str(state)]
    argv += ["--run-dir", "/run/podplane", "--cgroup-root", cluster.cgroup(NODE)]
    return subprocess.run(cluster.inside(NODE, argv), capture_output=True, text=True, timeout=60, check=False)


def test_containers_end_in_time_and_their_ends_are_told(cluster: Cluster, api: Api) -> None:
    here = {"kubernetes.io/hostname": NODE}
    # The first process of a container is deaf to a SIGTERM that it does not wait for.
    pods = [
        pod("polite", "/bin/sh", "-c", POLITE, nodeSelector=here, restartPolicy="Never"),
        pod("deaf", nodeSelector=here, restartPolicy="Never"),
        pod("again", nodeSelector=here),
    ]
    elsewhere = cluster.container_pids()
    try:
        for each in pods:
            api.create(each)
        for each in pods:
            api.running(each.metadata.name)
        eventually(lambda: api.logs("polite") == b"ready\n", what="its trap")
        refused = _shutdown(cluster)
        assert refused.returncode == 1
        assert "another agent runs with the state directory" in refused.stderr
        cluster.stop(NODE)
        done = _shutdown(cluster)
        assert done.returncode == 0, done.stderr
        assert cluster.container_pids() <= elsewhere
        cluster.start_node(NODE)
        codes = {
            name: _end(api.pod_when(name, lambda each: each.status.phase == "Failed")) for name in ("polite", "deaf")
        }
        assert codes == {"polite": 5, "deaf": 137}
        again = api.pod_when("again", lambda each: each.status.containerStatuses[0].restartCount == 1)
        assert again.status.containerStatuses[0].lastState.terminated.exitCode == 137
    finally:
        cluster.start_node(NODE)
        for each in pods:
            if api.find(POD, each.metadata.name):
                api.delete(POD, each.metadata.name, grace=0)
                api.gone(POD, each.metadata.name)


def _end(found: pod_pb2.Pod) -> int:
    return found.status.containerStatuses[0].state.terminated.exitCode

"""Pods whose containers share their processes: they see each other, their pause process outlives the agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import EVENT, POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import manifest
from tests.support.waiting import eventually

NODE = "node-1"
TEXT = f"""
apiVersion: v1
kind: Pod
metadata: {{name: together, namespace: default}}
spec:
  shareProcessNamespace: true
  nodeName: {NODE}
  terminationGracePeriodSeconds: 1
  containers:
    - {{name: server, image: host, command: [/bin/sh, -c, "trap 'exit 7' TERM; while :; do sleep 0.1; done"]}}
    - name: looker
      image: host
      command: [/bin/sh, -c]
      args:
        - |
          sh -c 'sleep 0.01 & exit 0'
          cat /proc/1/comm
          until pkill -TERM -f '^/bin/sh -c trap'; do sleep 0.1; done
          echo killed; exec sleep 600
"""


@pytest.fixture
def together(api: Api) -> Iterator[pod_pb2.Pod]:
    api.create(manifest(TEXT)[0])
    yield api.get(POD, "together")
    api.delete(POD, "together", grace=0)
    api.gone(POD, "together")


def test_containers_that_share_their_processes(cluster: Cluster, api: Api, together: pod_pb2.Pod) -> None:
    uid = together.metadata.uid
    # The one ends the other, which its policy starts again; the signal's handler ran, as it would not for a PID 1.
    api.pod_when("together", lambda found: [item.restartCount for item in containers(found)] == [1, 0])
    found = api.running("together")
    assert containers(found)[0].lastState.terminated.exitCode == 7
    assert api.logs("together", container="looker").decode().split() == ["pause", "killed"]
    pause = pause_of(cluster, uid)
    eventually(lambda: "Z" not in states(cluster, uid), what="the orphan, reaped")

    cluster.kill(NODE)
    cluster.start_node(NODE)
    cluster.await_ready(3)
    assert api.running("together").status == found.status
    assert pause_of(cluster, uid) == pause

    os.kill(pause, signal.SIGKILL)
    # Looked at as it is now: the other one, started again, will end the one again.
    again = api.pod_when("together", lambda found: [item.restartCount for item in containers(found)] == [2, 1])
    assert [item.lastState.terminated.exitCode for item in containers(again)] == [137, 137]
    api.running("together")
    assert pause_of(cluster, uid) != pause
    said = [event.reason for event in api.list(EVENT) if event.involvedObject.uid == uid]
    assert "SandboxChanged" in said

    api.delete(POD, "together", grace=1)
    api.gone(POD, "together")
    assert traces(cluster, uid) == []
    api.create(manifest(TEXT)[0])  # for the fixture, and: it can be made again


def containers(found: pod_pb2.Pod) -> list[pod_pb2.ContainerStatus]:
    return list(found.status.containerStatuses)


def pause_of(cluster: Cluster, uid: str) -> int:
    """The pod's pause process."""
    (procs,) = {path.read_text() for path in groups(cluster, f"pod{uid}/pause/cgroup.procs") if path.read_text()}
    return int(procs)


def groups(cluster: Cluster, pattern: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"*/{cluster.cgroup(NODE)}/*/{pattern}"))


def states(cluster: Cluster, uid: str) -> set[str]:
    """The states of what the pod's pause process has to reap or has yet to wait for."""
    pause = pause_of(cluster, uid)
    children = Path(f"/proc/{pause}/task/{pause}/children").read_text().split()
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children}


def traces(cluster: Cluster, uid: str) -> list[str]:
    """What of the pod's sandbox there is on the node."""
    run = Path(f"/proc/{cluster.holder(NODE).pid}/root/run/podplane")
    found = [*run.glob(f"sandboxes/{uid}*"), *run.glob(f"pause/*/{uid}*"), *groups(cluster, f"pod{uid}")]
    return [str(path) for path in found]

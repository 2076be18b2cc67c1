"""Volumes at their borders: an emptyDir over its limit, and mounts that propagate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from devcluster.cluster import Cluster
from podplane.kinds import EVENT, POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import manifest
from tests.support.waiting import eventually

GREEDY = """
apiVersion: v1
kind: Pod
metadata: {name: greedy, namespace: default}
spec:
  restartPolicy: Always
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c, "head -c 3000000 /dev/zero >/data/file; exec sleep infinity"]
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
"""


WRITING = """
apiVersion: v1
kind: Pod
metadata: {name: writing, namespace: default}
spec:
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c, "head -c 3000000 /dev/zero >/var/tmp/file; exec sleep infinity"]
      resources: {limits: {ephemeral-storage: 1Mi}}
    - {name: modest, image: host, command: [/bin/sleep, infinity]}
"""


def test_a_pod_over_its_limits_of_local_storage_is_evicted(api: Api) -> None:
    """Of a volume, and of what a container writes to its root."""
    with _pods(api, GREEDY), _pods(api, WRITING):
        for name, words in (
            ("greedy", 'Usage of EmptyDir volume "data" exceeds the limit "1Mi". '),
            ("writing", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
        ):
            evicted = api.pod_when(name, lambda pod: pod.status.phase == "Failed", seconds=60)
            assert (evicted.status.reason, evicted.status.message) == ("Evicted", words)
            told = eventually(lambda name=name: _evictions(api, name), what="the event")  # type: ignore[misc]
            assert told == [("Warning", words)]


def _evictions(api: Api, name: str) -> list[tuple[str, str]]:
    found = [item for item in api.list(EVENT) if item.reason == "Evicted" and item.involvedObject.name == name]
    return [(item.type, item.message) for item in found]


# The one that mounts starts last: what is there already, every recursive bind has.
SHARING = """
apiVersion: v1
kind: Pod
metadata: {name: sharing, namespace: default}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
    - name: taker
      image: host
      command: [/bin/sh, -c, "until cat /m/inner/file 2>/dev/null; do sleep 0.02; done; exec sleep infinity"]
      volumeMounts: [{name: shared, mountPath: /m, mountPropagation: HostToContainer}]
    - name: apart
      image: host
      command: [/bin/sh, -c, "until ls /m/inner; do sleep 0.02; done 2>/dev/null; echo nothing; exec sleep infinity"]
      volumeMounts: [{name: shared, mountPath: /m}]
    - name: giver
      image: host
      securityContext: {privileged: true}
      command: [/bin/sh, -c]
      args: ["mkdir -p /m/inner && mount -t tmpfs given /m/inner && echo given >/m/inner/file; exec sleep infinity"]
      volumeMounts: [{name: shared, mountPath: /m, mountPropagation: Bidirectional}]
  volumes: [{name: shared, hostPath: {path: DIRECTORY}}]
"""


def test_mounts_propagate_where_they_are_asked_to(cluster: Cluster, api: Api) -> None:
    directory = "/run/podplane-test-shared"
    _on(cluster, "mkdir", "-p", directory)
    _on(cluster, "mount", "-t", "tmpfs", "shared", directory)
    _on(cluster, "mount", "--make-private", directory)
    try:
        text = SHARING.replace("DIRECTORY", directory)
        with _pods(api, text):
            waiting = api.pod_when("sharing", lambda pod: set(_refusals(pod)) == {"taker", "giver"})
            words = f'CreateContainerError path "{directory}" is mounted on "{directory}" but it is not a'
            assert _refusals(waiting) == {"giver": f"{words} shared mount", "taker": f"{words} shared or slave mount"}
        _on(cluster, "mount", "--make-shared", directory)
        with _pods(api, text):
            api.running("sharing")
            eventually(lambda: api.logs("sharing", container="taker") == b"given\n", what="what the taker sees")
            eventually(lambda: api.logs("sharing", container="apart") == b"nothing\n", what="what the other sees")
            assert _on(cluster, "cat", f"{directory}/inner/file") == "given\n"
    finally:
        _on(cluster, "umount", "-R", directory)
        _on(cluster, "rmdir", directory)


def _refusals(pod: pod_pb2.Pod) -> dict[str, str]:
    waiting = {status.name: status.state.waiting for status in pod.status.containerStatuses}
    return {name: f"{state.reason} {state.message}" for name, state in waiting.items() if state.message}


def _on(cluster: Cluster, *argv: str) -> str:
    done = subprocess.run(cluster.inside("node-1", list(argv)), capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _pods(api: Api, text: str) -> Iterator[None]:
    (pod,) = manifest(text)
    assert isinstance(pod, pod_pb2.Pod)
    try:
        api.create(pod)
        yield
    finally:
        if api.find(POD, pod.metadata.name) is not None:
            api.delete(POD, pod.metadata.name, grace=0)
            api.gone(POD, pod.metadata.name)

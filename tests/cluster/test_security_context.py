"""What a securityContext does, as the container itself sees it, and what of it a node refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from devcluster.cluster import Cluster
from podplane.kinds import EVENT, NAMESPACE, POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import manifest, namespace, pod
from tests.support.waiting import eventually

SYSCTL = """
apiVersion: v1
kind: Pod
metadata: {name: tuned, namespace: default}
spec:
  restartPolicy: Never
  securityContext:
    sysctls:
      - {name: net.ipv4.ip_unprivileged_port_start, value: "1"}
      - {name: NAME, value: "0"}
  containers:
    - name: main
      image: host
      command: [/bin/cat, /proc/sys/net/ipv4/ip_unprivileged_port_start, /proc/sys/net/ipv4/tcp_syncookies]
"""


def test_safe_sysctls_are_the_pods_own_and_others_are_refused_by_the_node(api: Api) -> None:
    with _pods(api, SYSCTL.replace("NAME", "net/ipv4/tcp_syncookies")):
        api.pod_when("tuned", lambda found: found.status.phase == "Succeeded")
        assert _lines(api, "tuned") == ["1", "0"]
    with _pods(api, SYSCTL.replace("NAME", "net.core.somaxconn")):
        refused = api.pod_when("tuned", lambda found: found.status.phase == "Failed")
        assert (refused.status.reason, refused.status.message) == (
            "SysctlForbidden", 'Pod was rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted',
        )  # fmt: skip


def test_a_namespace_forbids_what_is_not_of_its_level_to_people_and_to_controllers(api: Api) -> None:
    home = namespace("fenced")
    home.metadata.labels["pod-security.kubernetes.io/enforce"] = "baseline"
    api.create(home)
    try:
        spy = pod("spy")
        spy.metadata.namespace = "fenced"
        with pytest.raises(grpc.RpcError) as refused:
            api.create(spy)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        words = 'violates PodSecurity "baseline:latest": host image (container "main" must not use the image "host")'
        assert refused.value.details() == f'pods "spy" is forbidden: {words}'
        (workload,) = manifest(WORKLOAD)
        api.create(workload)
        told = eventually(lambda: [event.message for event in api.list(EVENT, "fenced")], what="the event")
        assert any(message.endswith(words) for message in told), told
    finally:
        api.delete(NAMESPACE, "fenced")
        api.gone(NAMESPACE, "fenced", "")


WORKLOAD = """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: spies, namespace: fenced}
spec:
  selector: {matchLabels: {app: spies}}
  template:
    metadata: {labels: {app: spies}}
    spec: {containers: [{name: main, image: host, command: [/bin/sleep, infinity]}]}
"""


SHOWN = r"""
awk '/^(NoNewPrivs|Seccomp|CapEff|CapBnd):/ {print $1 $2}' /proc/self/status
echo "user:$(id -u):$(id -g)"; echo "groups:$(id -G)"; echo "oom:$(cat /proc/self/oom_score_adj)"
echo "root:$(touch /tmp/x 2>/dev/null && echo written)"; echo "mount:$(mount -t tmpfs x /mnt 2>/dev/null && echo done)"
echo "device:$(stat -c %F /dev/kmsg 2>/dev/null)"
"""
SECURED = """
apiVersion: v1
kind: Pod
metadata: {name: secured, namespace: default}
spec:
  restartPolicy: Never
  securityContext:
    {runAsUser: 1000, runAsGroup: 2000, runAsNonRoot: true, supplementalGroups: [3000], fsGroup: 4000}
  containers:
    - {name: folded, resources: {requests: {memory: 1Mi}}}
    - name: own
      securityContext:
        {runAsUser: 1001, runAsGroup: 2001, allowPrivilegeEscalation: true, readOnlyRootFilesystem: true,
         seccompProfile: {type: Unconfined}}
    - name: root
      securityContext:
        {runAsUser: 0, runAsNonRoot: false, capabilities: {add: [NET_RAW], drop: [CHOWN, MKNOD]}}
    - {name: bare, securityContext: {runAsUser: 0, runAsNonRoot: false, capabilities: {drop: [ALL]}}}
    - {name: privileged, securityContext: {runAsUser: 0, runAsNonRoot: false, privileged: true}}
    - {name: refused, securityContext: {runAsUser: 0}}
"""


def test_each_container_has_the_privileges_of_its_own_context_within_the_pods(cluster: Cluster, api: Api) -> None:
    (made,) = manifest(SECURED)
    assert isinstance(made, pod_pb2.Pod)
    for container in made.spec.containers:
        container.image = "host"
        container.command.extend(["/bin/sh", "-c", SHOWN])
    with _made(api, made):
        found = api.pod_when("secured", lambda found: sum(_over(found)) == 5 and _refusal(found))
        assert _refusal(found) == "CreateContainerConfigError: container's runAsUser breaks non-root policy"
        shown = {name: _shown(api, name) for name in ("folded", "own", "root", "bare", "privileged")}
        agent = cluster.process(found.spec.nodeName)
        assert agent is not None
        held = re.search(r"CapEff:\s(\w+)", Path(f"/proc/{agent.pid}/status").read_text())
    assert held is not None
    confined = {"NoNewPrivs": "1", "Seccomp": "2", "oom": "999", "root": "written", "mount": "", "device": ""}
    nobodys, roots = {"user": "1000:2000", "groups": "2000 3000 4000"}, {"user": "0:2000", "groups": "2000 3000 4000"}
    assert shown["folded"] == {**confined, **nobodys, **_capabilities(0, DEFAULT)}
    assert shown["own"] == {
        **confined, "NoNewPrivs": "0", "Seccomp": "0", "user": "1001:2001", "groups": "2001 3000 4000", "root": "",
        **_capabilities(0, DEFAULT),
    }  # fmt: skip
    assert shown["root"] == {**confined, **roots, **_capabilities(CHANGED, CHANGED)}
    assert shown["bare"] == {**confined, **roots, **_capabilities(0, 0)}
    everything = {"NoNewPrivs": "0", "Seccomp": "0", "mount": "done", "device": "character special file"}
    assert shown["privileged"] == {**confined, **everything, **roots, "CapEff": held[1], "CapBnd": held[1]}


DEFAULT = 0xA80405FB
"""containerd's capabilities, 0xa80425fb, without NET_RAW."""
CHANGED = 0xA00425FA
"""NET_RAW (bit 13) added to them, CHOWN (0) and MKNOD (27) dropped."""


def _capabilities(effective: int, bounding: int) -> dict[str, str]:
    return {"CapEff": f"{effective:016x}", "CapBnd": f"{bounding:016x}"}


def _shown(api: Api, container: str) -> dict[str, str]:
    lines = api.logs("secured", container=container).decode().splitlines()
    return {name: said for name, _, said in (line.partition(":") for line in lines)}


def _over(found: pod_pb2.Pod) -> list[bool]:
    return [status.state.HasField("terminated") for status in found.status.containerStatuses]


def _refusal(found: pod_pb2.Pod) -> str:
    waiting = [status.state.waiting for status in found.status.containerStatuses if status.name == "refused"]
    return "".join(f"{each.reason}: {each.message}" for each in waiting if each.message)


def _lines(api: Api, name: str) -> Sequence[str]:
    return api.logs(name).decode().splitlines()


@contextmanager
def _pods(api: Api, text: str) -> Iterator[None]:
    (pod,) = manifest(text)
    assert isinstance(pod, pod_pb2.Pod)
    with _made(api, pod):
        yield


@contextmanager
def _made(api: Api, pod: pod_pb2.Pod) -> Iterator[None]:
    try:
        api.create(pod)
        yield
    finally:
        if api.find(POD, pod.metadata.name) is not None:
            api.delete(POD, pod.metadata.name, grace=0)
            api.gone(POD, pod.metadata.name)

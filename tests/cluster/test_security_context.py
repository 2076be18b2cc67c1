"""What a securityContext does, as the container itself sees it, and what of it a node refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
import pytest

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


def _lines(api: Api, name: str) -> Sequence[str]:
    return api.logs(name).decode().splitlines()


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

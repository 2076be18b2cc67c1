"""What a container gets of its spec: cgroups and limits, and who is killed first, by quality of service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from nodeagent.pods.requests import oom_score_adj, pod_cgroup, pod_resources, security
from nodeagent.pods.resources import pod_request
from nodeagent.pods.state import new_state
from nodeagent.types import Resources, Security
from podplane.v1.container_pb2 import SecurityContext
from podplane.v1.pod_pb2 import Pod, PodSecurityContext
from tests.nodeagent.pods.world import make_pod

MI = 1 << 20


def with_resources(pod: Pod, index: int = 0, init: bool = False, **quantities: str) -> Pod:
    """Set cpu=, memory= (requests) and cpu_limit=, memory_limit= of one container."""
    container = (pod.spec.initContainers if init else pod.spec.containers)[index]
    for name, text in quantities.items():
        resource, _, limit = name.partition("_")
        (container.resources.limits if limit else container.resources.requests)[resource] = text
    return pod


@pytest.mark.parametrize(
    ("quantities", "where"),
    [
        ({}, "root/besteffort/poduid-1"),
        ({"cpu": "100m"}, "root/burstable/poduid-1"),
        ({"cpu_limit": "1", "memory_limit": "64Mi"}, "root/poduid-1"),
    ],
)
def test_the_quality_of_service_decides_where_a_pod_competes(quantities: dict[str, Any], where: str) -> None:
    assert pod_cgroup("root", new_state(with_resources(make_pod(), **quantities))) == where


def test_a_pod_is_limited_where_all_of_its_containers_are() -> None:
    pod = with_resources(make_pod(2), 0, cpu="100m", memory_limit="64Mi", cpu_limit="1")
    assert pod_resources(pod) == Resources(cpu_request=100, memory_request=64 * MI)
    with_resources(pod, 1, memory_limit="32Mi")
    assert pod_resources(pod) == Resources(cpu_request=100, memory_request=96 * MI, memory_limit=96 * MI)


def test_init_containers_count_where_they_need_more_than_the_apps_and_sidecars_beside_both() -> None:
    pod = with_resources(make_pod(apps=1, init=2), 0, memory="100Mi")
    with_resources(pod, 1, init=True, memory="150Mi")
    assert pod_request(pod.spec, "memory") == 150 * MI
    pod.spec.initContainers[0].restartPolicy = "Always"
    with_resources(pod, 0, init=True, memory="30Mi")
    assert pod_request(pod.spec, "memory") == 180 * MI
    with_resources(pod, 0, memory="160Mi")
    assert pod_request(pod.spec, "memory") == 190 * MI


@pytest.mark.parametrize(
    ("quantities", "score"),
    [
        ({"cpu_limit": "1", "memory_limit": "64Mi"}, -997),
        ({}, 1000),
        ({"cpu": "100m"}, 999),  # Burstable without a word on memory: still after who asked for nothing
        ({"memory": "1Mi"}, 999),  # 1000 - 1000/1024, in whole numbers
        ({"memory": "256Mi"}, 750),
        ({"memory": "256Mi", "memory_limit": "512Mi"}, 750),
        ({"memory_limit": "512Mi"}, 500),  # a limit alone is the request
        ({"memory": "1000Mi"}, 24),
        ({"memory": "1023Mi"}, 3),
        ({"memory": "2Gi"}, 3),
    ],
)
def test_who_is_killed_first_where_memory_runs_out(quantities: dict[str, Any], score: int) -> None:
    """On a node of 1 GiB; the scores are the kubelet's (Node-pressure Eviction, "Node out of memory behavior")."""
    pod = with_resources(make_pod(), **quantities)
    assert oom_score_adj(pod, pod.spec.containers[0], 1024 * MI) == score


@pytest.mark.parametrize(
    ("own", "apps", "sidecar", "init"),
    [
        ("", ("256Mi", "512Mi"), 750, 999),  # as the least of its apps
        ("128Mi", ("256Mi", "512Mi"), 750, 875),
        ("512Mi", ("256Mi", "256Mi"), 500, 500),  # its own request says more
        ("128Mi", ("", "512Mi"), 875, 875),  # an app that asks for nothing protects nobody
    ],
)
def test_a_sidecar_is_killed_no_sooner_than_the_apps_that_it_serves(
    own: str, apps: tuple[str, str], sidecar: int, init: int
) -> None:
    pod = make_pod(apps=2, init=2)
    pod.spec.initContainers[0].restartPolicy = "Always"
    for index in range(2):
        with_resources(pod, index, memory=apps[index])
        with_resources(pod, index, init=True, memory=own)
    assert [oom_score_adj(pod, container, 1024 * MI) for container in pod.spec.initContainers] == [sidecar, init]


POD_CONTEXT = {
    "runAsUser": 1000,
    "runAsGroup": 2000,
    "runAsNonRoot": True,
    "supplementalGroups": [3000],
    "fsGroup": 4000,
    "supplementalGroupsPolicy": "Strict",
    "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
}
FOLDED = Security(
    uid=1000,
    gid=2000,
    run_as_non_root=True,
    supplemental_groups=(3000, 4000),
    only_these_groups=True,
    seccomp="localhost/a/b.json",
)


@pytest.mark.parametrize(
    ("pod", "own", "expected"),
    [
        ({}, {}, Security()),
        (POD_CONTEXT, {}, FOLDED),
        # Zero and false are words of the container's own, not the absence of one.
        (
            POD_CONTEXT,
            {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}},
            replace(FOLDED, uid=0, gid=0, run_as_non_root=False, seccomp="Unconfined"),
        ),
        (POD_CONTEXT, {"seccompProfile": {"type": "RuntimeDefault"}}, replace(FOLDED, seccomp="RuntimeDefault")),
        ({"fsGroup": 3000, "supplementalGroups": [3000]}, {}, Security(supplemental_groups=(3000,))),
        ({"runAsUser": 1000}, {"runAsGroup": 7}, Security(uid=1000, gid=7)),
        (
            {},
            {
                "privileged": True,
                "allowPrivilegeEscalation": True,
                "readOnlyRootFilesystem": True,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "procMount": "Unmasked",
            },
            Security(
                privileged=True,
                allow_privilege_escalation=True,
                read_only_root=True,
                add_capabilities=("NET_ADMIN",),
                drop_capabilities=("ALL",),
                unmasked_proc=True,
            ),
        ),
    ],
)
def test_a_containers_context_goes_before_its_pods(
    pod: dict[str, Any], own: dict[str, Any], expected: Security
) -> None:
    made = make_pod()
    made.spec.securityContext.CopyFrom(ParseDict(pod, PodSecurityContext()))
    made.spec.containers[0].securityContext.CopyFrom(ParseDict(own, SecurityContext()))
    assert security(made, made.spec.containers[0]) == expected

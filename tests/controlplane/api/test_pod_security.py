"""What each level of pod security forbids, in the words of Kubernetes' own admission."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.admission import Admission, AdmissionContext
from controlplane.api.pod_security import Policy, policy, violation
from podplane.kinds import KINDS
from podplane.manifest.reading import from_tree
from podplane.v1 import namespace_pb2, pod_pb2
from tests.controlplane.api.validating import made, merge, wrong

HARDENED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
LABEL = "pod-security.kubernetes.io/"


def a_pod(
    image: str = "nginx:1", *, volumes: list[Any] | None = None, pod: Any = None, **container: Any
) -> pod_pb2.Pod:
    spec: dict[str, Any] = {"containers": [{"name": "a", "image": image, **container}]}
    tree = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {**spec, **(pod or {}), "volumes": volumes or []}}
    found = from_tree(tree, KINDS["Pod"].message)
    assert isinstance(found, pod_pb2.Pod)
    return found


BASELINE: list[tuple[pod_pb2.Pod, str]] = [
    (
        a_pod(securityContext={"capabilities": {"add": ["NET_RAW", "CHOWN", "SYS_ADMIN"]}}),
        'non-default capabilities (container "a" must not include "NET_RAW", "SYS_ADMIN" in '
        "securityContext.capabilities.add)",
    ),
    (a_pod(pod={"hostNetwork": True, "hostIPC": True}), "host namespaces (hostNetwork=true, hostIPC=true)"),
    (
        a_pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]),
        'hostPath volumes (volumes "v", "w")',
    ),
    (a_pod(ports=[{"containerPort": 80, "hostPort": 8080}]), 'hostPort (container "a" uses hostPort 8080)'),
    (
        a_pod(securityContext={"privileged": True}),
        'privileged (container "a" must not set securityContext.privileged=true)',
    ),
    (
        a_pod(
            pod={
                "securityContext": {"seccompProfile": {"type": "Unconfined"}},
                "initContainers": [
                    {"name": "i", "image": "x", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}
                ],
            }
        ),
        'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined", container "i" must not '
        'set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (
        a_pod(
            pod={
                "securityContext": {
                    "sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net/ipv4/tcp_syncookies"}]
                }
            }
        ),
        "forbidden sysctls (kernel.msgmax)",
    ),
    (a_pod("host"), 'host image (container "a" must not use the image "host")'),
]


@pytest.mark.parametrize(("pod", "expected"), BASELINE, ids=[words[:40] for _, words in BASELINE])
def test_baseline(pod: pod_pb2.Pod, expected: str) -> None:
    assert violation(Policy("baseline", "latest"), pod) == f'violates PodSecurity "baseline:latest": {expected}'
    assert violation(Policy("privileged", "latest"), pod) == ""


def test_an_ordinary_pod_is_of_baseline_and_not_of_restricted() -> None:
    pod = a_pod(volumes=[{"name": "v", "emptyDir": {}}, {"name": "n", "nfs": {"server": "s", "path": "/"}}])
    assert violation(Policy("baseline", "latest"), pod) == ""
    assert violation(Policy("restricted", "latest"), pod) == (
        'violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), '
        'restricted volume types (volume "n" uses restricted volume type "nfs"), '
        'runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )


RESTRICTED: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (
        {"runAsUser": 0, "runAsNonRoot": False},
        'runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false), '
        'runAsUser=0 (container "a" must not set runAsUser=0)',
    ),
    (
        {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
        'unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add)',
    ),
]


@pytest.mark.parametrize(("change", "expected"), RESTRICTED)
def test_restricted(change: dict[str, Any], expected: str) -> None:
    found = violation(Policy("restricted", "latest"), a_pod(securityContext={**HARDENED, **change}))
    assert found == (f'violates PodSecurity "restricted:latest": {expected}' if expected else "")


def test_a_pinned_version_judges_by_its_own_lists() -> None:
    pod = a_pod(pod={"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "1"}]}})
    assert violation(Policy("baseline", "v1.29"), pod) == ""
    assert "forbidden sysctls (net.ipv4.tcp_keepalive_time)" in violation(Policy("baseline", "v1.28"), pod)


def test_labels_say_the_policy_and_wrong_ones_are_refused() -> None:
    assert policy({}) == Policy("privileged", "latest")
    assert policy({f"{LABEL}enforce": "baseline", f"{LABEL}enforce-version": "v1.30"}) == Policy("baseline", "v1.30")
    labels = {f"{LABEL}enforce": "strict", f"{LABEL}warn-version": "1.30", f"{LABEL}audit-version": "v1.9"}
    assert wrong("Namespace", merge(metadata={"labels": labels})) == [
        f'metadata.labels[{LABEL}enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted',
        f'metadata.labels[{LABEL}audit-version]: Invalid value: "v1.9": versions before v1.25 are not supported',
        f'metadata.labels[{LABEL}warn-version]: Invalid value: "1.30": must be "latest" or "v1.x"',
    ]


def test_pods_are_judged_when_made_and_when_their_spec_changes_and_templates_are_not() -> None:
    home = namespace_pb2.Namespace()
    home.metadata.labels[f"{LABEL}enforce"] = "baseline"
    context = AdmissionContext("create", lookup=lambda _kind, _namespace, _name: home)
    admission, pod = Admission(), a_pod("host")
    assert "host image" in admission.forbids(pod, None, context)
    same = pod_pb2.Pod()
    same.CopyFrom(pod)
    same.metadata.labels["a"] = "b"
    assert admission.forbids(same, pod, context) == ""
    same.spec.containers[0].image = "nginx"
    assert "host image" in admission.forbids(pod, same, context)
    hosts = [{"name": "a", "image": "host"}]
    template = merge(spec={"template": {"spec": {"containers": hosts}}})
    assert admission.forbids(made("Deployment", template), None, context) == ""

"""What a status may say, of every kind that has one."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.admission import STATUS_VALIDATORS, Admission
from podplane.kinds import KINDS
from tests.controlplane.api.validating import VALID, Change, Tree, made, merge

BALANCED = {"type": "LoadBalancer", "ports": [{"port": 80}]}
FINE: dict[str, Tree] = {
    "Pod": {
        "phase": "Running",
        "qosClass": "BestEffort",
        "hostIP": "192.0.2.1",
        "hostIPs": [{"ip": "192.0.2.1"}],
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "example.org/gate", "status": "Unknown"}],
        "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}],
        "containerStatuses": [
            {"name": "a", "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}
        ],
    },
    "Service": {
        "loadBalancer": {
            "ingress": [
                {"ip": "198.51.100.7", "ipMode": "Proxy", "ports": [{"port": 80, "protocol": "TCP"}]},
                {"ip": "2001:db8::7"},
                {"hostname": "lb.example.org"},
            ]
        },
        "conditions": [{"type": "Ready", "status": "False"}],
    },
    "Node": {
        "capacity": {"cpu": "4"},
        "allocatable": {"memory": "1Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "node-1"}],
    },
    "Namespace": {"phase": "Active"},
    "Deployment": {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "unavailableReplicas": 1,
        "collisionCount": 1,
        "conditions": [{"type": "Available", "status": "True"}],
    },
    "ReplicaSet": {"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 2},
}


def judged(kind: str, status: Tree, before: Tree | None = None, change: Change = lambda obj: None) -> list[str]:
    """What is wrong with a fine status with these changes, after the status before."""
    of_kind: Change = merge(spec=BALANCED) if kind == "Service" else lambda obj: None
    new, old = made(kind, of_kind), made(kind, of_kind)
    merge(status=FINE[kind])(new)
    merge(status=status)(new)
    merge(status=before or {})(old)
    change(new)
    return [str(one) for one in Admission().validate_status(new, old)]


def ingress(**fields: Any) -> Tree:
    return {"loadBalancer": {"ingress": [fields]}}


def conditions(*types: str, status: str = "True") -> Tree:
    return {"conditions": [{"type": type, "status": status} for type in types]}


BOTH: Tree = {"running": {}, "terminated": {"exitCode": 0}}
WRONG: list[tuple[str, Tree, str]] = [
    ("Pod", {"phase": "Ready"}, 'status.phase: Unsupported value: "Ready": supported values: "Pending", "Running"'),
    ("Pod", {"qosClass": "Best"}, 'status.qosClass: Unsupported value: "Best"'),
    ("Pod", {"nominatedNodeName": "A"}, 'status.nominatedNodeName: Invalid value: "A"'),
    ("Pod", {"hostIP": "here"}, 'status.hostIP: Invalid value: "here": must be a valid IP address'),
    ("Pod", {"hostIPs": [{"ip": "192.0.2.2"}]}, 'status.hostIPs: Invalid value: ["192.0.2.2"]: must be `hostIP` and'),
    ("Pod", {"podIP": "10.244.1.3"}, 'status.podIPs: Invalid value: ["10.244.1.2"]: must be `podIP` and no more'),
    ("Pod", {"podIP": "there"}, 'status.podIP: Invalid value: "there": must be a valid IPv4 address'),
    ("Pod", {"podIP": "fd00::1"}, 'status.podIP: Invalid value: "fd00::1": must be an IPv4 address'),
    ("Pod", {"podIP": "169.254.169.254"}, "may not be unspecified, loopback, link-local or multicast"),
    ("Pod", conditions("Ready", status="Yes"), 'status.conditions[0].status: Unsupported value: "Yes"'),
    ("Pod", conditions("Ready", status=""), "status.conditions[0].status: Required value"),
    ("Pod", conditions("Ready", "Ready"), 'status.conditions[1].type: Duplicate value: "Ready"'),
    ("Pod", conditions("a b"), 'status.conditions[0].type: Invalid value: "a b": name part must consist of'),
    ("Pod", {"containerStatuses": [{}]}, "status.containerStatuses[0].name: Required value"),
    ("Pod", {"containerStatuses": [{"name": "a"}] * 2}, 'status.containerStatuses[1].name: Duplicate value: "a"'),
    (
        "Pod",
        {"containerStatuses": [{"name": "a", "restartCount": -1}]},
        "status.containerStatuses[0].restartCount: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        "Pod",
        {"initContainerStatuses": [{"name": "i", "state": BOTH}]},
        "status.initContainerStatuses[0].state: Forbidden: may not specify more than 1 of",
    ),
    ("Pod", {"containerStatuses": [{"name": "a", "lastState": BOTH}]}, "status.containerStatuses[0].lastState: Forb"),
    ("Service", ingress(ip="nowhere"), 'status.loadBalancer.ingress[0].ip: Invalid value: "nowhere": must be a valid'),
    ("Service", ingress(ip="127.0.0.1"), "may not be unspecified, loopback, link-local or multicast"),
    ("Service", ingress(ip="fe80::1%eth0"), "may not be unspecified, loopback, link-local or multicast"),
    ("Service", ingress(hostname="a_b"), 'status.loadBalancer.ingress[0].hostname: Invalid value: "a_b"'),
    ("Service", ingress(hostname="192.0.2.1"), 'hostname: Invalid value: "192.0.2.1": must be a DNS name, not an IP'),
    (
        "Service",
        ingress(ip="192.0.2.1", ipMode="Vip"),
        'status.loadBalancer.ingress[0].ipMode: Unsupported value: "Vip"',
    ),
    ("Service", ingress(hostname="lb", ipMode="VIP"), "ipMode: Forbidden: may not be specified when `ip` is not set"),
    ("Service", ingress(ip="192.0.2.1", ports=[{"protocol": "TCP"}]), "ingress[0].ports[0].port: Invalid value: 0"),
    ("Service", ingress(ip="192.0.2.1", ports=[{"port": 80}]), "ingress[0].ports[0].protocol: Required value"),
    ("Service", conditions("Ready", status="true"), 'status.conditions[0].status: Unsupported value: "true"'),
    ("Node", {"phase": "Up"}, 'status.phase: Unsupported value: "Up"'),
    ("Node", {"capacity": {"cpu": "-1"}}, "status.capacity[cpu]: Invalid value"),
    ("Node", {"allocatable": {"memory": "-1"}}, "status.allocatable[memory]: Invalid value"),
    ("Node", conditions("Ready", status="Maybe"), 'status.conditions[0].status: Unsupported value: "Maybe"'),
    ("Node", {"addresses": [{"type": "Home", "address": "a"}]}, 'status.addresses[0].type: Unsupported value: "Home"'),
    (
        "Node",
        {"addresses": [{"type": "InternalIP", "address": "a"}]},
        'status.addresses[0].address: Invalid value: "a"',
    ),
    ("Node", {"addresses": [{"type": "Hostname", "address": "a_b"}]}, "status.addresses[0].address: Invalid value"),
    ("Node", {"addresses": [{"type": "Hostname", "address": "a"}] * 2}, "status.addresses[1]: Duplicate value: {"),
    ("Namespace", {"phase": "Terminating"}, "may only be 'Active' if `deletionTimestamp` is empty"),
    ("Deployment", {"replicas": -1}, "status.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ("Deployment", {"unavailableReplicas": -1}, "status.unavailableReplicas: Invalid value: -1"),
    (
        "Deployment",
        {"updatedReplicas": 4},
        "status.updatedReplicas: Invalid value: 4: cannot be greater than status.rep",
    ),
    (
        "Deployment",
        {"availableReplicas": 3},
        "status.availableReplicas: Invalid value: 3: cannot be greater than ready",
    ),
    ("Deployment", conditions("Available", status="On"), 'status.conditions[0].status: Unsupported value: "On"'),
    ("ReplicaSet", {"observedGeneration": -1}, "status.observedGeneration: Invalid value: -1"),
    (
        "ReplicaSet",
        {"fullyLabeledReplicas": 4},
        "status.fullyLabeledReplicas: Invalid value: 4: cannot be greater than",
    ),
    ("ReplicaSet", conditions("ReplicaFailure", status="?"), 'status.conditions[0].status: Unsupported value: "?"'),
]


@pytest.mark.parametrize(("kind", "status", "expected"), WRONG, ids=[f"{kind}-{e[:50]}" for kind, _, e in WRONG])
def test_what_a_status_may_not_say(kind: str, status: Tree, expected: str) -> None:
    found = judged(kind, status)
    assert any(expected in one for one in found), found


@pytest.mark.parametrize("kind", FINE)
def test_a_fine_status_is_found_right_and_so_is_none_yet(kind: str) -> None:
    assert judged(kind, {}) == []
    fresh = made(kind)
    assert Admission().validate_status(fresh, fresh) == []


def test_every_kind_with_a_status_has_a_judge() -> None:
    having = {kind for kind in VALID if "status" in KINDS[kind].message.DESCRIPTOR.fields_by_name}
    assert having == set(STATUS_VALIDATORS) == set(FINE)


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_phase_at_its_end_never_changes(end: str) -> None:
    assert judged("Pod", {"phase": end, "message": "more to say"}, {"phase": end}) == []
    for phase in {"Succeeded", "Failed", "Running"} - {end}:
        (found,) = judged("Pod", {"phase": phase}, {"phase": end})
        assert found.endswith(f'"{phase}": a pod that has {end} never changes its phase again')
    (found,) = judged("Pod", {}, {"phase": end}, lambda pod: pod.status.ClearField("phase"))
    assert found.startswith('status.phase: Invalid value: ""')


def test_only_a_load_balancers_service_has_a_load_balancer() -> None:
    def change(service: Any) -> None:
        service.spec.type = "NodePort"

    assert judged("Service", {}, change=change) == [
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    ]


def test_a_namespace_that_is_deleted_says_so() -> None:
    def change(namespace: Any) -> None:
        namespace.metadata.deletionTimestamp.FromSeconds(1)

    assert judged("Namespace", {"phase": "Terminating"}, change=change) == []
    (found,) = judged("Namespace", {"phase": "Active"}, change=change)
    assert "may only be 'Terminating' if `deletionTimestamp` is not empty" in found


def test_collisions_are_only_counted_up() -> None:
    assert judged("Deployment", {}, {"collisionCount": 2}) == [
        "status.collisionCount: Invalid value: 1: cannot be decremented"
    ]

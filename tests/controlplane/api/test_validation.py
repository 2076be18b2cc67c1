"""Other kinds: every refusal names its field, in Kubernetes' words. Each case changes one thing of a valid object."""

from __future__ import annotations

import pytest

from controlplane.api.admission import Admission
from podplane.kinds import KINDS
from tests.controlplane.api.validating import (
    Change,
    context,
    made,
    merge,
    template,
    wrong,
)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_valid_object_is_valid(kind: str) -> None:
    assert wrong(kind, lambda obj: None) == []
    obj = made(kind)
    assert Admission().validate(obj, obj, context("update")) == []


OTHERS: list[tuple[str, Change, str]] = [
    (
        "Deployment",
        merge(spec={"selector": {"matchLabels": {"app": "db"}}}),
        'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
    ),
    ("Deployment", lambda obj: obj.spec.ClearField("selector"), "spec.selector: Required value"),
    ("Deployment", lambda obj: obj.spec.selector.matchLabels.clear(), "spec.selector: Invalid value"),
    ("Deployment", lambda obj: obj.spec.ClearField("template"), "spec.template: Required value"),
    (
        "Deployment",
        merge(spec={"replicas": -1}),
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    ),
    ("Deployment", merge(spec={"strategy": {"type": "Fast"}}), 'spec.strategy.type: Unsupported value: "Fast"'),
    (
        "Deployment",
        merge(spec={"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    ),
    (
        "Deployment",
        merge(spec={"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
    ),
    (
        "Deployment",
        merge(spec={"strategy": {"rollingUpdate": {"maxSurge": "many"}}}),
        "spec.strategy.rollingUpdate.maxSurge: Invalid value",
    ),
    ("Deployment", template(containers=[{"name": "a"}]), "spec.template.spec.containers[0].image: Required value"),
    (
        "Deployment",
        template(restartPolicy="Never"),
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ),
    ("ReplicaSet", template(activeDeadlineSeconds=5), "spec.template.spec.activeDeadlineSeconds: Forbidden"),
    ("Service", merge(metadata={"name": "1a"}), 'metadata.name: Invalid value: "1a": a DNS-1035 label'),
    (
        "Service",
        merge(spec={"ports": [{"port": 80, "nodePort": 29999}]}),
        "29999: provided port is not in the valid range. The range of valid ports is 30000-32767",
    ),
    (
        "Service",
        merge(spec={"type": "ClusterIP"}),
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    ),
    ("Service", lambda obj: obj.spec.ClearField("ports"), "spec.ports: Required value"),
    (
        "Service",
        merge(spec={"ports": [{"port": 0}]}),
        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535",
    ),
    ("Service", merge(spec={"ports": [{"port": 1}, {"port": 2}]}), "spec.ports[0].name: Required value"),
    (
        "Service",
        merge(spec={"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}),
        'spec.ports[1].name: Duplicate value: "a"',
    ),
    (
        "Service",
        merge(spec={"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]}),
        'spec.ports[1]: Duplicate value: "1/TCP"',
    ),
    ("Service", merge(spec={"type": "Magic"}), 'spec.type: Unsupported value: "Magic"'),
    ("Service", merge(spec={"externalIPs": ["1.2.3.4"]}), "spec.externalIPs: Forbidden"),
    (
        "Service",
        merge(spec={"clusterIP": "10.97.0.1"}),
        "is not in the valid range. The range of valid IPs is 10.96.0.0/16",
    ),
    (
        "Service",
        merge(spec={"clusterIP": "ten"}),
        'spec.clusterIPs[0]: Invalid value: "ten": must be a valid IPv4 address',
    ),
    ("Service", merge(spec={"clusterIP": "None"}), "may not be set to 'None' for NodePort services"),
    ("Service", merge(spec={"type": "ExternalName"}), "spec.externalName: Required value"),
    (
        "Service",
        merge(spec={"healthCheckNodePort": 32000}),
        "spec.healthCheckNodePort: Invalid value: 32000: may only be set when `type` is 'LoadBalancer' and",
    ),
    (
        "Service",
        merge(spec={"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 80}),
        "spec.healthCheckNodePort: Invalid value: 80: provided port is not in the valid range",
    ),
    (
        "Service",
        merge(spec={"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30080}),
        "spec.healthCheckNodePort: Invalid value: 30080: provided port is already allocated",
    ),
    (
        "Service",
        merge(spec={"allocateLoadBalancerNodePorts": False}),
        "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ),
    (
        "Service",
        merge(spec={"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401",
    ),
    ("Service", merge(spec={"internalTrafficPolicy": "Near"}), 'spec.internalTrafficPolicy: Unsupported value: "Near"'),
    ("ConfigMap", merge(data={"a/b": "1"}), 'data[a/b]: Invalid value: "a/b": a valid config key'),
    ("ConfigMap", merge(binaryData={"a.b": ""}), "duplicate of key present in binaryData"),
    ("ConfigMap", merge(data={"a": "x" * (1024 * 1024 + 1)}), "data: Too long: may not be more than 1048576 bytes"),
    ("Secret", merge(type="kubernetes.io/tls"), "data[tls.crt]: Required value"),
    ("Secret", merge(type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "aGk="}), "redacted"),
    ("Namespace", merge(metadata={"name": "a.b"}), "metadata.name: Invalid value"),
    ("Namespace", merge(metadata={"namespace": "x"}), "metadata.namespace: Forbidden: not allowed on this type"),
    (
        "Node",
        merge(spec={"taints": [{"key": "a", "effect": "Never"}]}),
        'spec.taints[0].effect: Unsupported value: "Never"',
    ),
    (
        "Node",
        merge(spec={"taints": [{"key": "a", "effect": "NoSchedule"}] * 2}),
        'spec.taints[1]: Duplicate value: "a:NoSchedule"',
    ),
    (
        "EndpointSlice",
        merge(endpoints=[{"addresses": ["127.0.0.1"]}]),
        "may not be unspecified, loopback, link-local or multicast",
    ),
    ("EndpointSlice", merge(endpoints=[{"addresses": ["fd00::1"]}]), "must be an IPv4 address"),
    ("EndpointSlice", merge(endpoints=[{}]), "endpoints[0].addresses: Required value"),
    ("Event", merge(involvedObject={"namespace": "other"}), "involvedObject.namespace: Invalid value"),
]


@pytest.mark.parametrize(("kind", "change", "expected"), OTHERS, ids=[f"{kind}-{e[:50]}" for kind, _, e in OTHERS])
def test_bad_objects(kind: str, change: Change, expected: str) -> None:
    found = wrong(kind, change)
    assert any(expected in one for one in found), found


def test_everything_wrong_is_told_at_once() -> None:
    found = wrong("Pod", merge(spec={"containers": [{}, {"name": "B"}], "restartPolicy": "x"}))
    assert len(found) >= 5


def test_a_taken_node_port_or_address_is_refused_and_the_other_protocol_is_free() -> None:
    other = made("Service", merge(metadata={"name": "other"}, spec={"clusterIP": "10.96.0.9"}))
    assert wrong("Service", lambda obj: None, (other,)) == [
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    ]
    assert wrong("Service", merge(spec={"ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]}), (other,)) == []
    found = wrong(
        "Service", merge(spec={"clusterIP": "10.96.0.9", "ports": [{"port": 1, "nodePort": 30001}]}), (other,)
    )
    assert found == [
        'spec.clusterIPs[0]: Invalid value: "10.96.0.9": '
        "failed to allocate IP 10.96.0.9: provided IP is already allocated"
    ]

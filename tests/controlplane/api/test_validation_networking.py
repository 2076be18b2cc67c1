"""Host namespaces, host ports, names and DNS of pods: what is taken, and what is refused in Kubernetes' words."""

from __future__ import annotations

import pytest

from tests.controlplane.api.validating import Change, container, made, merge, template, wrong

_PORT = {"containerPort": 80}


def _host(**port: object) -> Change:
    containers = [{"name": "a", "image": "x", "ports": [{**_PORT, **port}]}]
    return merge(spec={"hostNetwork": True, "containers": containers})


BAD: list[tuple[str, Change, str]] = [
    (
        "Pod",
        _host(hostPort=81),
        "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is",
    ),
    (
        "Deployment",
        template(hostNetwork=True, containers=[{"name": "a", "image": "x", "ports": [{**_PORT, "hostPort": 81}]}]),
        "spec.template.spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when",
    ),
    (
        "Pod",
        container(ports=[{**_PORT, "hostPort": 80, "hostIP": "::1"}]),
        'spec.containers[0].ports[0].hostIP: Invalid value: "::1": must be a valid IPv4 address',
    ),
    (
        "Pod",
        container(ports=[{**_PORT, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]),
        'spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"',
    ),
    (
        "Pod",
        merge(spec={"dnsConfig": {"searches": ["a.example"] * 33}}),
        'spec.dnsConfig.searches: Invalid value: ["a.example"',
    ),
    (
        "Pod",
        merge(spec={"dnsConfig": {"searches": ["a" * 60 + "." + "b" * 60] * 20}}),
        "must not have more than 2048 characters (including spaces) in the search list",
    ),
    (
        "Pod",
        merge(spec={"dnsConfig": {"options": [{"name": "ndots", "value": "5\nnameserver 192.0.2.1"}]}}),
        'spec.dnsConfig.options[0]: Invalid value: "ndots": must not contain white space',
    ),
    ("Pod", merge(spec={"hostname": "a.b"}), 'spec.hostname: Invalid value: "a.b"'),
    ("Pod", merge(spec={"subdomain": "A"}), 'spec.subdomain: Invalid value: "A"'),
]


@pytest.mark.parametrize(("kind", "change", "expected"), BAD, ids=[expected[:60] for _, _, expected in BAD])
def test_bad_networking(kind: str, change: Change, expected: str) -> None:
    found = wrong(kind, change)
    assert any(expected in one for one in found), found


GOOD: list[Change] = [
    _host(),
    _host(hostPort=80, hostIP="127.0.0.1"),
    merge(spec={"hostIPC": True, "subdomain": "db", "setHostnameAsFQDN": True}),
    merge(spec={"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "options": [{"name": "edns0"}]}}),
]


@pytest.mark.parametrize("change", GOOD)
def test_good_networking(change: Change) -> None:
    assert wrong("Pod", change) == []


def test_a_pod_with_the_nodes_network_has_its_ports_as_host_ports_and_a_template_does_not() -> None:
    assert made("Pod", _host()).spec.containers[0].ports[0].hostPort == 80
    spec = {"hostNetwork": True, "containers": [{"name": "a", "image": "x", "ports": [_PORT]}]}
    deployment = made("Deployment", template(**spec))
    assert not deployment.spec.template.spec.containers[0].ports[0].HasField("hostPort")
    assert wrong("Deployment", template(**spec)) == []

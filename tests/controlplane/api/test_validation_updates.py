"""What an update may and may not change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.api.validating import (
    Change,
    container,
    merge,
    updated,
)

UPDATES: list[tuple[str, Change, str]] = [
    ("Pod", container(name="a", image="y"), "pod updates may not change fields other than"),
    ("Pod", merge(spec={"nodeName": "n"}), "spec.nodeName: Forbidden: pod updates may not change"),
    (
        "Pod",
        merge(spec={"tolerations": [{"operator": "Exists"}]}),
        "spec.tolerations[0]: Forbidden: existing toleration",
    ),
    ("Deployment", merge(spec={"selector": {"matchLabels": {"a": "b"}}}), "field is immutable"),
    (
        "Service",
        merge(spec={"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}),
        'spec.clusterIP: Invalid value: "10.96.0.77": field is immutable',
    ),
    (
        "Service",
        merge(spec={"type": "ClusterIP", "clusterIP": "10.96.0.77", "externalTrafficPolicy": "Local"}),
        'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
    ),
    ("Secret", merge(type="other"), 'type: Invalid value: "other": field is immutable'),
    ("Node", merge(spec={"podCIDRs": ["10.0.0.0/24"], "podCIDR": "10.0.0.0/24"}), "spec.podCIDRs: Forbidden"),
    ("ConfigMap", merge(metadata={"name": "other"}), 'metadata.name: Invalid value: "other": field is immutable'),
    ("EndpointSlice", merge(addressType="FQDN"), "addressType: Invalid value"),
]


@pytest.mark.parametrize(("kind", "change", "expected"), UPDATES, ids=[f"{kind}-{e[:50]}" for kind, _, e in UPDATES])
def test_what_may_not_change(kind: str, change: Change, expected: str) -> None:
    found = updated(kind, change)
    assert any(expected in one for one in found), found


def test_a_pods_image_deadline_and_more_tolerations_may_change() -> None:
    def change(pod: Any) -> None:
        pod.spec.containers[0].image = "nginx:2"
        pod.spec.activeDeadlineSeconds = 5
        pod.spec.tolerations.add(key="a", operator="Exists")
        pod.metadata.labels["a"] = "b"

    assert updated("Pod", change) == []
    longer = updated("Pod", merge(spec={"activeDeadlineSeconds": 9}), merge(spec={"activeDeadlineSeconds": 5}))
    assert longer == ["spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"]


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_an_immutable_one_stays_as_it_is(kind: str) -> None:
    seal = merge(immutable=True)
    assert updated(kind, merge(metadata={"labels": {"a": "b"}}), seal) == []
    assert updated(kind, merge(immutable=False), seal) == [
        "immutable: Forbidden: field is immutable when `immutable` is set"
    ]
    found = updated(kind, merge(data={"b": "aGk="}), seal)
    assert found == ["data: Forbidden: field is immutable when `immutable` is set"]

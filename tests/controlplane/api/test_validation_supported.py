"""What this version does not support is refused by field."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.validation.supported import UNSUPPORTED
from podplane.kinds import KINDS
from tests.controlplane.api.validating import (
    Change,
    container,
    merge,
    one_volume,
    template,
    wrong,
)


def test_every_row_of_unsupported_names_a_field_that_exists() -> None:
    known: dict[str, Any] = {}

    def collect(descriptor: Any) -> None:
        if descriptor.name not in known:
            known[descriptor.name] = descriptor
            for field in descriptor.fields:
                if field.message_type is not None:
                    collect(field.message_type)

    for kind in KINDS.values():
        collect(kind.message.DESCRIPTOR)
    for row in UNSUPPORTED:
        message, _, field = row.partition(".")
        assert field in known[message].fields_by_name, row


NOT_YET: list[tuple[str, Change, str]] = [
    (
        "Pod",
        container(lifecycle={"preStop": {"tcpSocket": {"port": 80}}}),
        "spec.containers[0].lifecycle.preStop.tcpSocket: Forbidden: not supported",
    ),
    ("Pod", merge(spec={"hostUsers": False}), "spec.hostUsers: Forbidden: false is not supported"),
    (
        "Pod",
        one_volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: not supported",
    ),
    (
        "Pod",
        merge(spec={"topologySpreadConstraints": [{}]}),
        "spec.topologySpreadConstraints: Forbidden: not supported",
    ),
    ("Pod", one_volume(image={"reference": "data:1"}), "spec.volumes[0].image: Forbidden: not supported"),
    (
        "Pod",
        container(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
        "spec.containers[0].resizePolicy: Forbidden: not supported",
    ),
    ("Pod", one_volume(iscsi={"targetPortal": "a"}), "spec.volumes[0].iscsi: Forbidden: not supported"),
    (
        "Deployment",
        template(ephemeralContainers=[{"name": "e"}]),
        "spec.template.spec.ephemeralContainers: Forbidden: not supported",
    ),
    ("Service", merge(spec={"loadBalancerClass": "x/y"}), "spec.loadBalancerClass: Forbidden"),
    ("Service", merge(spec={"ipFamilies": ["IPv6"]}), 'spec.ipFamilies: Forbidden: "IPv6" is not supported'),
]


@pytest.mark.parametrize(("kind", "change", "expected"), NOT_YET, ids=[e[:50] for _, _, e in NOT_YET])
def test_what_is_not_supported_is_refused_by_field(kind: str, change: Change, expected: str) -> None:
    found = wrong(kind, change)
    assert any(one.startswith(expected) for one in found), found


def test_what_asks_for_nothing_is_not_refused() -> None:
    spec = {"hostNetwork": False, "hostUsers": True, "serviceAccountName": "default", "os": {"name": "linux"}}
    assert wrong("Pod", merge(spec=spec)) == []

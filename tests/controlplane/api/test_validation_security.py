"""Security contexts: what is taken, and what is refused in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.api.validating import Change, container, merge, wrong


def _sysctl(name: str, **spec: Any) -> Change:
    return merge(spec={"securityContext": {"sysctls": [{"name": name, "value": "1"}]}, **spec})


BAD: list[tuple[Change, str]] = [
    (
        _sysctl("Kernel.x"),
        'spec.securityContext.sysctls[0].name: Invalid value: "Kernel.x": must have at most 253 characters and match',
    ),
    (_sysctl("net/../x"), 'spec.securityContext.sysctls[0].name: Invalid value: "net/../x": must have at most 253'),
    (_sysctl("net." + "a" * 260), "must have at most 253 characters and match regex"),
    (
        _sysctl("net.ipv4.tcp_syncookies", hostNetwork=True),
        "sysctls[0].name: Invalid value: \"net.ipv4.tcp_syncookies\": may not be specified when 'hostNetwork' is true",
    ),
    (_sysctl("kernel.shmmax", hostIPC=True), "may not be specified when 'hostIPC' is true"),
    (
        merge(spec={"hostPID": True, "shareProcessNamespace": True}),
        "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
    ),
    (
        merge(spec={"securityContext": {"fsGroupChangePolicy": "Sometimes"}}),
        'spec.securityContext.fsGroupChangePolicy: Unsupported value: "Sometimes": supported values: "Always"',
    ),
    (
        merge(spec={"securityContext": {"supplementalGroupsPolicy": "None"}}),
        'spec.securityContext.supplementalGroupsPolicy: Unsupported value: "None": supported values: "Merge", "Strict"',
    ),
    (
        merge(spec={"securityContext": {"supplementalGroups": [1, 1 << 31]}}),
        "spec.securityContext.supplementalGroups[1]: Invalid value: 2147483648: must be between 0 and 2147483647",
    ),
    (
        container(securityContext={"runAsUser": 1 << 31}),
        "spec.containers[0].securityContext.runAsUser: Invalid value: 2147483648: must be between 0 and 2147483647",
    ),
    (
        container(volumeMounts=[{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]),
        "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available",
    ),
    (container(securityContext={"procMount": "Some"}), "securityContext.procMount: Unsupported value"),
    (
        container(securityContext={"appArmorProfile": {"type": "RuntimeDefault"}}),
        "spec.containers[0].securityContext.appArmorProfile: Forbidden: not supported",
    ),
    (
        merge(spec={"securityContext": {"seLinuxOptions": {"level": "s0"}}}),
        "spec.securityContext.seLinuxOptions: Forbidden: not supported",
    ),
]


@pytest.mark.parametrize(("change", "expected"), BAD, ids=[expected[:60] for _, expected in BAD])
def test_bad_security(change: Change, expected: str) -> None:
    found = wrong("Pod", change)
    assert any(expected in one for one in found), found


GOOD: list[Change] = [
    merge(spec={"hostPID": True, "shareProcessNamespace": False}),
    _sysctl("net/ipv4/tcp_syncookies"),
    _sysctl("kernel.msgmax"),
    merge(spec={"securityContext": {"fsGroup": 1, "fsGroupChangePolicy": "OnRootMismatch"}}),
    merge(spec={"securityContext": {"supplementalGroups": [5], "supplementalGroupsPolicy": "Strict"}}),
]


@pytest.mark.parametrize("change", GOOD)
def test_good_security(change: Change) -> None:
    assert wrong("Pod", change) == []

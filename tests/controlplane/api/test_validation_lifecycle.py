"""Hooks, sidecars and shared processes: what is taken, and what is refused in Kubernetes' words."""

from __future__ import annotations

import pytest

from tests.controlplane.api.validating import Change, container, merge, wrong


def init(**fields: object) -> Change:
    return merge(spec={"initContainers": [{"name": "i", "image": "x", **fields}]})


def hooks(**made: object) -> Change:
    return container(lifecycle=made)


TAKEN: list[Change] = [
    init(restartPolicy="Always"),
    init(
        restartPolicy="Always",
        lifecycle={"preStop": {"exec": {"command": ["a"]}}},
        startupProbe={"exec": {"command": ["a"]}},
        livenessProbe={"tcpSocket": {"port": 80}},
        readinessProbe={"httpGet": {"port": 80}, "successThreshold": 2},
    ),
    hooks(postStart={"exec": {"command": ["a"]}}, preStop={"httpGet": {"port": 80}}),
    hooks(preStop={"sleep": {"seconds": 30}}),
    hooks(postStart={"httpGet": {"port": "web", "path": "/a", "httpHeaders": [{"name": "X-A", "value": "b"}]}}),
]


@pytest.mark.parametrize("change", TAKEN)
def test_a_life_that_is_taken(change: Change) -> None:
    assert wrong("Pod", change) == []


REFUSED: list[tuple[Change, str]] = [
    (hooks(postStart={}), "spec.containers[0].lifecycle.postStart: Required value: must specify a handler type"),
    (
        hooks(preStop={"exec": {"command": ["a"]}, "sleep": {"seconds": 1}}),
        "spec.containers[0].lifecycle.preStop.sleep: Forbidden: may not specify more than 1 handler type",
    ),
    (hooks(preStop={"exec": {}}), "spec.containers[0].lifecycle.preStop.exec.command: Required value"),
    (
        hooks(preStop={"sleep": {"seconds": 31}}),
        "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be greater than 0 and less than "
        "terminationGracePeriodSeconds (30)",
    ),
    (hooks(postStart={"sleep": {}}), "spec.containers[0].lifecycle.postStart.sleep: Invalid value: 0: must be greater"),
    (
        hooks(postStart={"httpGet": {"port": 70000}}),
        "spec.containers[0].lifecycle.postStart.httpGet.port: Invalid value: 70000",
    ),
    (
        init(restartPolicy="OnFailure"),
        'spec.initContainers[0].restartPolicy: Unsupported value: "OnFailure": supported values: "Always"',
    ),
    (
        init(readinessProbe={"httpGet": {"port": 80}}),
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=",
    ),
    (
        init(restartPolicy="Always", startupProbe={"exec": {"command": ["a"]}, "successThreshold": 2}),
        "spec.initContainers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
    ),
    (
        init(lifecycle={"preStop": {"exec": {"command": ["a"]}}}),
        "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
    ),
]


@pytest.mark.parametrize(("change", "expected"), REFUSED, ids=[expected[:60] for _, expected in REFUSED])
def test_a_life_that_is_refused(change: Change, expected: str) -> None:
    found = wrong("Pod", change)
    assert any(expected in one for one in found), found

"""Quality of service."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.manifest.reading import from_tree
from podplane.qos import qos_class
from podplane.v1 import pod_pb2

BOTH = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"ephemeral-storage": "1Gi"}}], "BestEffort"),
        ([{"limits": {"cpu": "0"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": BOTH}], "Guaranteed"),
        ([{"limits": BOTH, "requests": {"cpu": "1000m"}}], "Guaranteed"),
        ([{"limits": BOTH, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": BOTH}, {}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_classes(resources: list[dict[str, Any]], expected: str) -> None:
    spec = from_tree({"containers": [{"resources": one} for one in resources]}, pod_pb2.PodSpec)
    assert qos_class(spec) == expected

"""Numbers or strings: percentages and named ports."""

from __future__ import annotations

import pytest

from podplane import intstr
from podplane.v1 import container_pb2


@pytest.mark.parametrize(
    ("value", "total", "surge", "unavailable"),
    [(3, 10, 3, 3), ("25%", 10, 3, 2), ("0%", 10, 0, 0), ("100%", 7, 7, 7), ("34%", 3, 2, 1), ("25%", 0, 0, 0)],
)
def test_surge_rounds_up_and_unavailable_down(value: int | str, total: int, surge: int, unavailable: int) -> None:
    assert intstr.scaled(intstr.of(value), total, round_up=True) == surge
    assert intstr.scaled(intstr.of(value), total, round_up=False) == unavailable


@pytest.mark.parametrize("value", ["25", "%", "-1%", "a%", "1.5%", ""])
def test_other_strings_are_no_share(value: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor a percentage"):
        intstr.scaled(intstr.of(value), 10, round_up=True)


def test_named_ports() -> None:
    container = container_pb2.Container()
    container.ports.add(name="dns", containerPort=53, protocol="UDP")
    container.ports.add(name="dns", containerPort=54)
    assert intstr.resolve_port(intstr.of(8080), []) == 8080
    assert intstr.resolve_port(intstr.of("dns"), [container]) == 53
    assert intstr.resolve_port(intstr.of("dns"), [container], "TCP") == 54
    assert intstr.resolve_port(intstr.of("http"), [container]) is None

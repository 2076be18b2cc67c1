"""Containers on pure cgroup v2: limits, weights, kills and who ran out of memory, under crun."""

from __future__ import annotations

import pytest

from tests.vm import suite
from tests.vm.conftest import MakeMachine
from tests.vm.machine import Shape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
SUITE = tuple(f"tests/nodeagent/runtime/test_{name}.py" for name in ("pod_cgroups", "containers", "confinement"))


def test_containers_live_and_are_limited_on_cgroup_v2(boot: MakeMachine) -> None:
    machine = boot(Shape("v2", memory=2048))
    assert machine.run("stat", "-f", "-c", "%T", "/sys/fs/cgroup") == "cgroup2fs\n"
    assert suite.run(machine, *SUITE, seconds=120, environment={"PODPLANE_TEST_RUNTIME": "crun"}) >= 30

"""The service suite on a kernel that has IPVS: every mode keeps the promises of all."""

from __future__ import annotations

import re

import pytest

from tests.vm import suite
from tests.vm.conftest import MakeMachine
from tests.vm.machine import Machine, Shape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
SUITE = ("tests/net/test_services.py", "tests/net/test_proxy.py")
OF_IPVS = "tests/net/test_inspection.py"
"""What the other modes show on any kernel."""


@pytest.fixture(scope="module")
def machine(boot: MakeMachine) -> Machine:
    return boot(Shape("services", memory=1536))


@pytest.mark.parametrize("mode", ["ipvs", "nftables", "iptables-nft"])
def test_the_service_suite_passes(machine: Machine, mode: str) -> None:
    files = (*SUITE, OF_IPVS) if mode == "ipvs" else SUITE
    report = suite.run(machine, *files, "-k", f"[{mode}]", seconds=90)
    passed = re.search(r"(\d+) passed", report)
    assert passed is not None
    assert int(passed[1]) >= 18, report


def test_cleanup_leaves_nothing_of_any_mode(machine: Machine) -> None:
    report = suite.run(machine, "tests/net/test_cleanup.py", "-k", "nobody", seconds=60)
    assert "1 passed" in report, report

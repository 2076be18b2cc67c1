"""The service suite on a kernel that has IPVS: every mode keeps the promises of all."""

from __future__ import annotations

import pytest

from tests.vm import suite
from tests.vm.channel import Remote
from tests.vm.conftest import MakeMachine
from tests.vm.machine import Machine, Shape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
NET = "tests/net"
SUITE = (f"{NET}/test_services.py", f"{NET}/test_proxy.py", "-k")
RUNS = {
    # what → (pytest's arguments, tests that pass at least)
    "ipvs": ((*SUITE, "ipvs"), 25),
    # What the other modes show on any kernel.
    "ipvs: inspection, refusals": ((f"{NET}/test_inspection.py", f"{NET}/test_refusal.py", "-k", "ipvs"), 10),
    "ipvs: drift, changes of mode": ((f"{NET}/test_drift.py", f"{NET}/test_modes.py", "-k", "ipvs"), 14),
    "nftables": ((*SUITE, "nftables"), 24),
    "iptables-nft": ((*SUITE, "iptables-nft"), 24),
    "cleanup": ((f"{NET}/test_cleanup.py", "-k", "nobody"), 1),
}


@pytest.fixture(scope="module")
def machine(boot: MakeMachine) -> Machine:
    return boot(Shape("services", memory=2048))


@pytest.fixture(scope="module")
def running(machine: Machine, request: pytest.FixtureRequest) -> dict[str, Remote]:
    """All that were asked for at once, on both CPUs: in namespaces of their own they do not meet."""
    asked = [what for what in RUNS if any(f"[{what}]" in item.nodeid for item in request.session.items)]
    return {what: suite.start(machine, *RUNS[what][0]) for what in asked}


@pytest.mark.parametrize("what", RUNS)
def test_the_service_suite_passes(machine: Machine, running: dict[str, Remote], what: str) -> None:
    assert suite.passed(machine, running[what], seconds=180) >= RUNS[what][1]

"""The service suite on a kernel that has IPVS: every mode keeps the promises of all."""

from __future__ import annotations

import pytest

from tests.vm import suite
from tests.vm.channel import Remote
from tests.vm.conftest import MakeMachine
from tests.vm.machine import Machine, Shape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


def files(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/net/test_{name}.py" for name in names)


SUITE = files("services", "outside", "proxy")
RUNS = {
    # what → (pytest's arguments, tests that pass at least)
    "ipvs": (
        (*SUITE, *files("drift", "firewall", "inspection", "modes", "refusal", "two_nodes"), "-k", "ipvs"),
        51,
    ),
    # What other files show of these modes they show on any kernel.
    "others": ((*SUITE, *files("cleanup"), "-k", "nftables or nobody or (iptables-nft and not cleanup)"), 49),
}
"""One for each CPU: deadlines are for a process that has one to itself."""


@pytest.fixture(scope="module")
def machine(boot: MakeMachine) -> Machine:
    made = boot(Shape("services", memory=1536))
    made.run("modprobe", "br_netfilter", seconds=30)  # not by one run in the middle of the other's before and after
    return made


@pytest.fixture(scope="module")
def running(machine: Machine, request: pytest.FixtureRequest) -> dict[str, Remote]:
    """Those that were asked for, at once: in namespaces of their own they do not meet."""
    asked = [what for what in RUNS if any(f"[{what}]" in item.nodeid for item in request.session.items)]
    return {what: suite.start(machine, *RUNS[what][0]) for what in asked}


@pytest.mark.parametrize("what", RUNS)
def test_the_service_suite_passes(machine: Machine, running: dict[str, Remote], what: str) -> None:
    assert suite.passed(machine, running[what], seconds=300) >= RUNS[what][1]

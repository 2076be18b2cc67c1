"""One VM, in two minutes, on every run: services by IPVS, which this machine's own kernel may lack."""

from __future__ import annotations

import pytest

from tests.vm import suite
from tests.vm.conftest import MakeMachine
from tests.vm.machine import Shape

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]
CHOSEN = "[ipvs] and (every_endpoint or refused_at_once or udp_flow)"


def test_services_are_served_by_ipvs(boot: MakeMachine) -> None:
    machine = boot(Shape("smoke", memory=768))
    assert suite.run(machine, "tests/net/test_proxy.py", "-k", CHOSEN, seconds=20) == 3

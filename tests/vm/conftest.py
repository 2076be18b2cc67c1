"""VMs for tests, or the reason why there are none here."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.vm.disk import disk
from tests.vm.kernel import HERE, Unavailable, alone, kernel
from tests.vm.machine import CHECKOUT, Machine, Shape
from tests.vm.resume import Passed

_passed = cache(lambda: Passed(CHECKOUT))

_LONGEST_FIRST = ("test_services", "test_cluster", "test_containers", "test_systemd", "test_nfs")
"""Modules as two processes take them, so that both end together: a process takes the next when two tests are left."""

MakeMachine = Callable[[Shape], Machine]
MakeDisk = Callable[[str], Path]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """RESUME=1 leaves out the long tests that have passed before, with not a file changed since."""
    items.sort(key=_turn)
    known = _passed().tests() if os.environ.get("RESUME") else frozenset()
    done = [item for item in items if item.nodeid in known]
    items[:] = [item for item in items if item.nodeid not in known]
    config.hook.pytest_deselected(items=done)


def _turn(item: pytest.Item) -> int:
    first = item.path.parent == HERE and item.path.stem in _LONGEST_FIRST
    return _LONGEST_FIRST.index(item.path.stem) if first else len(_LONGEST_FIRST)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and "vm" in report.keywords:
        _passed().note(report.nodeid)


@pytest.fixture(scope="session")
def vms() -> None:
    """Skips, with the reason, where this machine can have no VM."""
    if CHECKOUT.is_relative_to("/tmp"):
        pytest.skip(f"no VM can be had here: its /tmp is its own, and would hide the checkout {CHECKOUT}")
    try:
        kernel()
    except Unavailable as reason:
        pytest.skip(f"no VM can be had here: {reason}")
    _compile()


def _compile() -> None:
    """Bytecode of all that guests import: they can keep none, and would compile it at every start of a program."""
    ours = (str(CHECKOUT / name) for name in ("podplane", "controlplane", "nodeagent", "podctl", "tests"))
    argv = [sys.executable, "-m", "compileall", "-qq", *ours, *filter(os.path.isdir, site.getsitepackages())]
    with alone("bytecode"):
        subprocess.run(argv, capture_output=True, timeout=300, check=False)  # what cannot be compiled nobody imports


@pytest.fixture(scope="module")
def boot(vms: None) -> Iterator[MakeMachine]:
    """Boots VMs, each gone at the end of the module."""
    machines: list[Machine] = []

    def make(shape: Shape) -> Machine:
        machines.append(Machine(shape))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture(scope="module")
def make_disk(vms: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeDisk]:
    """Makes disks for VMs of this module, each a new copy, or skips with the reason."""
    made: list[Path] = []

    def make(name: str) -> Path:
        try:
            made.append(disk(tmp_path_factory.mktemp("disk") / name))
        except Unavailable as reason:
            pytest.skip(f"no VM with a disk can be had here: {reason}")
        return made[-1]

    yield make
    for path in made:
        path.unlink(missing_ok=True)

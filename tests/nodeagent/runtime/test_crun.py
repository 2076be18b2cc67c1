"""The container tests once more with crun, in a mount namespace whose cgroups it accepts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_the_container_tests_pass_with_crun() -> None:
    here = Path(__file__).parent
    argv = [sys.executable, "-m", "tests.nodeagent.runtime.isolated", sys.executable, "-m", "pytest", "-q", "-x",
            "-p", "no:cacheprovider",
            *(str(here / f"test_{name}.py") for name in ("containers", "confinement", "rootfs", "pause"))]  # fmt: skip
    env = {**os.environ, "PODPLANE_TEST_RUNTIME": "crun"}
    done = subprocess.run(argv, env=env, cwd=here.parents[2], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:]

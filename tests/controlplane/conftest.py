"""Fixtures that the tests of the control plane share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controlplane.plane import Plane, running


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """A control plane that runs, on an empty store with the namespace default."""
    async with running(tmp_path / "state") as plane:
        yield plane

"""The drivers that the contract suite runs against: each is a way to open a log that lives in a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from controlplane.store.log import Log
from controlplane.store.sqlite import SqliteLog

OpenLog = Callable[[], Awaitable[Log]]

DRIVERS: dict[str, Callable[[Path], Awaitable[Log]]] = {"sqlite": SqliteLog.open}


@pytest.fixture(params=DRIVERS)
async def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenLog]:
    """Opens the test's store, as often as the test closes it."""
    opened: list[Log] = []

    async def open_it() -> Log:
        opened.append(await DRIVERS[request.param](tmp_path / "store"))
        return opened[-1]

    yield open_it
    for log in opened:
        await log.close()


@pytest.fixture
async def log(open_log: OpenLog) -> Log:
    return await open_log()

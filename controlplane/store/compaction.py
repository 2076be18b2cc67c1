"""Regular compaction: history older than one interval goes, the newest state stays.

Owns the rhythm only. A compaction that cannot be made now (a full disk) is made at the next turn.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from controlplane.store.log import Log
from podplane.errors import Unavailable

INTERVAL = 300.0
"""Seconds, as Kubernetes' API server compacts etcd."""

logger = logging.getLogger(__name__)


async def run(log: Log, interval: float = INTERVAL) -> NoReturn:
    """Compact every `interval` seconds to where the log was one interval before."""
    while True:
        revision = log.revision
        await asyncio.sleep(interval)
        try:
            await log.compact(revision)
        except Unavailable as error:
            logger.warning("cannot compact the store, next try in %.0f s: %s", interval, error)

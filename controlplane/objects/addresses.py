"""Which service holds which address and node port, at all times: without reading all services for each write of one."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.api.allocate import Ledger
from controlplane.store.cache import WatchCache
from controlplane.store.log import Change, Log
from podplane.kinds import SERVICE

_SERVICES = f"{SERVICE.plural}/"


def ledger_of(log: Log, cache: WatchCache) -> Ledger:
    """A ledger of what the cache holds that follows the log: a change is in it before its commit returns."""
    ledger = Ledger(stored.obj for stored in cache.list(SERVICE))

    def follow(changes: Sequence[Change]) -> None:
        for change in changes:
            if not change.key.startswith(_SERVICES):
                continue
            if change.value is None:
                _, namespace, name = change.key.split("/", 2)
                ledger.drop(namespace, name)
            else:
                ledger.put(SERVICE.parse(change.value))

    # In the loop step of the list above: no change is missed, and none comes twice.
    log.subscribe(follow)
    return ledger

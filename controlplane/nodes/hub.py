"""Routes what happens in the store to the sessions that it concerns: one subscription a kind for all nodes.

Owns the subscriptions, the placement index and what is known of withdrawals. A subscription that was too slow starts
over: the index is loaded again and every session gets a snapshot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from controlplane.nodes import frames
from controlplane.nodes.placement import Placement
from controlplane.nodes.session import Session, digest
from controlplane.nodes.withdrawals import Withdrawals
from controlplane.store.cache import Subscription, WatchCache
from controlplane.store.stored import Event
from podplane.errors import Expired
from podplane.kinds import CONFIG_MAP, ENDPOINT_SLICE, NODE, POD, SECRET, SERVICE, Kind

logger = logging.getLogger(__name__)


class Hub:
    """Feeds `sessions`, which its owner keeps, by node name; tells `on_removed` the uid of each pod that is gone.

    `alive`: the nodes that were heard of lately, connected or not: their rules count.
    """

    def __init__(
        self,
        cache: WatchCache,
        sessions: Mapping[str, Session],
        on_removed: Callable[[str], None],
        alive: Callable[[], Iterable[str]],
    ) -> None:
        self._cache = cache
        self._sessions = sessions
        self._on_removed = on_removed
        self._alive = alive
        self.placement = Placement()
        self._withdrawals = Withdrawals()
        self._services: dict[str, int] = {}
        self._services_digest = ""
        self._pods = self._load()

    def _load(self) -> Subscription:
        pods = self._cache.list(POD)
        self.placement.load(pods)
        self._withdrawals.load_pods(pods)
        return self._cache.watch(POD)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_pods())
            for kind in (NODE, SERVICE, ENDPOINT_SLICE, CONFIG_MAP, SECRET):
                group.create_task(self._follow(kind))

    async def _follow_pods(self) -> None:
        while True:
            try:
                async for batch in self._pods:
                    for event in batch:
                        self._pod(event)
                return
            except Expired:
                self._start_over(POD)
                self._pods = self._load()

    async def _follow(self, kind: Kind) -> None:
        while True:
            subscription = self._cache.watch(kind)
            if kind is SERVICE:
                self._services = {one.obj.metadata.uid: one.revision for one in self._cache.list(SERVICE)}
                self._services_digest = ""
            elif kind is ENDPOINT_SLICE:
                self._withdrawals.load_slices(self._cache.list(ENDPOINT_SLICE))
                self._tell_withdrawn()
            try:
                async for batch in subscription:
                    for event in batch:
                        self._object(event)
                return
            except Expired:
                self._start_over(kind)
            finally:
                subscription.close()

    def _start_over(self, kind: Kind) -> None:
        logger.warning("the sessions' watch was too slow: every node gets a snapshot", extra={"kind": kind.name})
        for session in self._sessions.values():
            session.resync()

    def _pod(self, event: Event) -> None:
        gone = event.type == "DELETED"
        node = self.placement.remove(event.stored) if gone else self.placement.put(event.stored)
        if gone:
            self._on_removed(event.stored.obj.metadata.uid)
            self._withdrawals.pod_removed(event.stored.obj.metadata.uid)
        elif node:
            # First, so that the agent of a pod that no rule leads to knows it when it learns of the deletion.
            self._withdrawals.pod_changed(event.stored)
            self._tell_withdrawn()
        session = self._sessions.get(node)
        if session is None:
            return
        if gone:
            session.pod_removed(event.stored)
        else:
            session.pod_changed(event.stored)

    def _object(self, event: Event) -> None:
        stored = event.stored
        if stored.kind is SERVICE:
            self._count_service(event)
        if stored.kind not in (CONFIG_MAP, SECRET):
            for session in self._sessions.values():
                session.object_changed(event)
            if stored.kind is ENDPOINT_SLICE:
                self._withdrawals.slice_changed(event)
                self._tell_withdrawn()
            return
        for node in self.placement.users((stored.kind.name, stored.namespace, stored.name)):
            if node in self._sessions:
                self._sessions[node].object_changed(event)

    def programmed(self, node: str, revision: int, frozen: Iterable[str] = ()) -> None:
        """A node's rules are that far, but for those of the services (namespace/name) that it names."""
        self._withdrawals.programmed(node, revision, frozen)
        self._tell_withdrawn()

    def rules_of(self, node: str) -> int:
        """The revision that a node's rules express, as it last said; 0 where it never did."""
        return self._withdrawals.rules_of(node)

    def _tell_withdrawn(self) -> None:
        for node, uid in self._withdrawals.due(self._alive()):
            if node in self._sessions:
                self._sessions[node].control(frames.withdrawn(uid))

    def entered(self, session: Session) -> None:
        """A session begins: its agent may have missed what the one before was told."""
        for uid in self._withdrawals.of(session.node):
            session.control(frames.withdrawn(uid))

    def _count_service(self, event: Event) -> None:
        uid = event.stored.obj.metadata.uid
        if event.type == "DELETED":
            self._services.pop(uid, None)
        else:
            self._services[uid] = event.revision
        self._services_digest = ""

    def services_digest(self) -> str:
        """The digest of the services that every agent was told of; made once a change, asked for by every agent."""
        if not self._services_digest:
            self._services_digest = digest(self._services.items())
        return self._services_digest

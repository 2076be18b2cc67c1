"""Keeps routes, service rules and DNS in step with the cluster: collects changes, then tells network and proxy once.

Owns no rule and no route. Tells the proxy nothing before a whole snapshot has come in: an agent that has just started
must not take working rules away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from nodeagent.dns.server import DnsServer
from nodeagent.pods.objects import Key, Objects
from nodeagent.proxy.desired import SERVICE, SLICE
from nodeagent.proxy.sync import ProxySync
from nodeagent.receiver import FrameReceiver
from nodeagent.sandbox.ipam import gateway
from nodeagent.sandbox.network import Network
from podplane.v1.node_pb2 import Node

KEEP = 5.0
"""Seconds between looks whether links, routes and settings still stand."""


class NetworkFollower:
    """One for the node; `run` until cancelled."""

    def __init__(
        self,
        node_name: str,
        objects: Objects,
        receiver: FrameReceiver,
        network: Network,
        proxy: ProxySync,
        dns: DnsServer | None,
    ) -> None:
        self._node_name = node_name
        self._objects = objects
        self._receiver = receiver
        self._network = network
        self._proxy = proxy
        self._dns = dns
        self._wake = asyncio.Event()
        self._services = self._routes = True
        self._touched: dict[tuple[str, Key], None] | None = None
        """Which services and slices have changed since the proxy was told; None: it has not been told yet."""
        self._ranges = ("", "")
        objects.listen(self._changed)

    def _changed(self, kind: str, key: Key) -> None:
        if kind == "node":
            self._routes = True
        elif kind in (SERVICE, SLICE):
            self._services = True
            if self._touched is not None:
                self._touched[kind, key] = None
        else:
            return
        self._wake.set()

    def wake(self) -> None:
        """Look again: the ranges may have changed, or a snapshot has come in."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + KEEP
        while True:
            await self._follow()
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - loop.time())):
                    await self._wake.wait()
            self._wake.clear()
            if loop.time() >= due:
                await self._network.keep()
                due = loop.time() + KEEP

    async def _follow(self) -> None:
        known = self._receiver.membership
        ranges = (known.pod_cidr, known.cluster_cidr)
        if all(ranges) and ranges != self._ranges:
            self._ranges, self._routes = ranges, False
            await self._network.configure(known.pod_cidr, self._node_routes(), known.cluster_cidr)
            self._proxy.configure(*ranges)
            if self._dns is not None:
                self._dns.configure(str(gateway(known.pod_cidr)), known.cluster_cidr, known.service_cidr)
        elif self._routes and all(ranges):
            self._routes = False
            await self._network.set_routes(self._node_routes())
        if self._services and self._receiver.synced:
            self._services = False
            touched, self._touched = self._touched, {}
            self._proxy.update(
                dict(self._objects.services),
                dict(self._objects.endpoint_slices),
                self._node_name,
                revision=self._receiver.revision,
                touched=touched,
            )

    def _node_routes(self) -> Mapping[str, str]:
        return {
            node.spec.podCIDR: address
            for node in self._objects.nodes.values()
            if node.metadata.name != self._node_name and node.spec.podCIDR and (address := _internal_ip(node))
        }


def _internal_ip(node: Node) -> str:
    return next((item.address for item in node.status.addresses if item.type == "InternalIP"), "")

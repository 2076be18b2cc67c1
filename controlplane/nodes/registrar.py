"""Node objects: made when an agent first connects, kept up to date from its reports. Gives each its pod CIDR.

Owns the allocation of pod CIDRs, one at a time, from what the store says is taken.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from controlplane.nodes.statuses import merge_node_identity, merge_node_status
from controlplane.objects import Objects
from podplane.errors import AlreadyExists, Unavailable
from podplane.kinds import NODE
from podplane.v1 import meta_pb2, node_pb2

POD_PREFIX = 24


class Registrar:
    """The Node objects of connected agents."""

    def __init__(self, objects: Objects, cluster: ipaddress.IPv4Network) -> None:
        self._objects = objects
        self._cluster = cluster
        self._allocating = asyncio.Lock()

    async def ensure(self, name: str, held: str = "") -> node_pb2.Node:
        """The node's object, with its pod CIDR; made where it is not there.

        `held`: the CIDR that the node has from before, under a store that is gone; given again where it is free.
        """
        stored = self._objects.cache.get(NODE, "", name)
        if stored is not None and stored.obj.spec.podCIDR:
            found: node_pb2.Node = stored.obj
            return found
        async with self._allocating:
            return await self._register(name, held)

    async def _register(self, name: str, held: str) -> node_pb2.Node:
        taken = [node.obj.spec.podCIDR for node in self._objects.cache.list(NODE)]
        cidr = held if is_free(self._cluster, taken, held) else free_range(self._cluster, taken)
        node = node_pb2.Node(metadata=meta_pb2.ObjectMeta(name=name), spec=node_pb2.NodeSpec(podCIDR=cidr))
        node.spec.podCIDRs.append(cidr)
        node.metadata.labels["kubernetes.io/hostname"] = name
        try:
            made: node_pb2.Node = await self._objects.create(node)
        except AlreadyExists:
            made = await self._objects.mutate(
                NODE, "", name, lambda held: merge_node_identity(held, node_pb2.Node(), cidr)
            )
        return made

    async def report(self, name: str, reported: node_pb2.Node) -> None:
        """Take in what the agent says of its node."""
        await self.ensure(name)
        await self._objects.mutate(NODE, "", name, lambda held: merge_node_identity(held, reported, ""))
        await self._objects.mutate(NODE, "", name, lambda held: merge_node_status(held, reported.status), status=True)


def is_free(cluster: ipaddress.IPv4Network, taken: Iterable[str], cidr: str) -> bool:
    """True for a /24 of `cluster` that overlaps none of `taken`. Pure."""
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError:
        return False
    used = [ipaddress.IPv4Network(other, strict=False) for other in taken if other]
    return (
        network.prefixlen == POD_PREFIX
        and network.subnet_of(cluster)
        and not any(network.overlaps(other) for other in used)
    )


def free_range(cluster: ipaddress.IPv4Network, taken: Iterable[str]) -> str:
    """The lowest /24 of `cluster` that overlaps none of `taken`; Unavailable where there is none. Pure."""
    used = [ipaddress.ip_network(cidr, strict=False) for cidr in taken if cidr]
    exact = {network for network in used if network.prefixlen == POD_PREFIX}
    others = [network for network in used if network.prefixlen != POD_PREFIX]
    for candidate in cluster.subnets(new_prefix=POD_PREFIX):
        if candidate not in exact and not any(candidate.overlaps(other) for other in others):
            return str(candidate)
    raise Unavailable(f"cannot give the node a pod CIDR: every /{POD_PREFIX} of {cluster} is taken")

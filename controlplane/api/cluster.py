"""What a client asks of the control plane itself: Cluster (Version, WhoAmI, Can), health and reflection."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.reflection import aio  # type: ignore[import-untyped]

from controlplane.api.authz import READ, WRITE, Attempt, forbidden
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.store.log import Log
from podplane.errors import Invalid, NotFound
from podplane.kinds import KINDS, typed
from podplane.v1 import cluster_pb2

HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


class Cluster:
    """The Cluster service."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Version": self.version, "WhoAmI": self.who_am_i, "Can": self.can}

    async def version(self, _request: cluster_pb2.VersionRequest, _call: Call) -> cluster_pb2.VersionResponse:
        return cluster_pb2.VersionResponse(
            version=importlib.metadata.version("podplane"),
            clusterID=self._log.cluster_id,
            epoch=self._log.epoch,
            revision=str(self._log.revision),
        )

    async def who_am_i(self, _request: cluster_pb2.WhoAmIRequest, call: Call) -> cluster_pb2.WhoAmIResponse:
        return cluster_pb2.WhoAmIResponse(username=call.identity.username, groups=call.identity.groups)

    async def can(self, request: cluster_pb2.CanRequest, call: Call) -> cluster_pb2.CanResponse:
        if not request.verb or not request.resource:
            raise Invalid("verb and resource: are required")
        for attempt in _attempts(request):
            if not call.authorizer.allows(call.identity, attempt):
                return cluster_pb2.CanResponse(allowed=False, reason=forbidden(call.identity, attempt))
        return cluster_pb2.CanResponse(allowed=True)


def _attempts(request: cluster_pb2.CanRequest) -> Iterator[Attempt]:
    """What is asked about; `*` stands for every verb or every resource, and all of them must be allowed."""
    word, slash, subresource = request.resource.partition("/")
    for kind in KINDS.values() if word == "*" else (typed(word),):
        namespace = request.namespace if kind.namespaced else ""
        for verb in sorted(READ | WRITE) if request.verb == "*" else (request.verb,):
            yield Attempt(verb, kind.plural + slash + subresource, namespace, request.name)


class Health:
    """grpc.health.v1: a server that answers serves; open to all, so that a load balancer can ask."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(("", *services))

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Check": self.check, "List": self.list, "Watch": self.watch}

    async def check(self, request: health_pb2.HealthCheckRequest, _call: Call) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            raise NotFound(f"there is no service {request.service}")
        return _SERVING

    async def list(self, _request: Any, _call: Call) -> Any:
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, _SERVING))

    async def watch(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        yield await self.check(request, call)
        # Until the client goes or the server ends the stream: there is no other state to tell of.
        await asyncio.Event().wait()


_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def reflection(services: Sequence[str]) -> dict[str, Behaviour]:
    """gRPC reflection over the default descriptor pool, by method name."""
    servicer = aio.ReflectionServicer([*services, HEALTH.full_name, REFLECTION.full_name])

    def info(requests: Any, call: Call) -> AsyncIterator[Any]:
        answers: AsyncIterator[Any] = servicer.ServerReflectionInfo(requests, call.context)
        return answers

    return {"ServerReflectionInfo": info}

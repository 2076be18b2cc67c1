"""Batch.Write: up to 100 writes a frame, each with its own authorization, precondition and result.

A frame's writes run at the same time, so that they share a group commit; frames run one after the other. One
write's failure is its result and does not touch the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

from controlplane.api.authz import Attempt
from controlplane.api.grpc_server import Call, status_of
from controlplane.api.handlers import DEFAULT_NAMESPACE, Verbs
from podplane.errors import Invalid
from podplane.kinds import KINDS, POD, Kind
from podplane.v1 import batch_pb2

LIMIT = 100

_VERBS = {
    "create": ("create", "", "create"),
    "update": ("update", "", "update"),
    "apply": ("patch", "", "apply"),
    "updateStatus": ("update", "/status", "update_status"),
}
"""By the verb of the proto: the verb and subresource to authorize, and the method of Verbs."""


class Batch:
    """The Batch service."""

    def __init__(self, verbs: Mapping[str, Verbs]) -> None:
        self._verbs = verbs

    async def write(
        self, requests: AsyncIterator[batch_pb2.BatchRequest], call: Call
    ) -> AsyncIterator[batch_pb2.BatchResponse]:
        """One response a request, in order."""
        async for request in requests:
            if len(request.writes) > LIMIT:
                raise Invalid(f"writes: {len(request.writes)} are too many for one frame, the most is {LIMIT}")
            results = await asyncio.gather(*(self._result(write, call) for write in request.writes))
            yield batch_pb2.BatchResponse(results=results)

    async def _result(self, write: batch_pb2.BatchWrite, call: Call) -> batch_pb2.BatchResult:
        try:
            obj = await self._perform(write, call)
        except Exception as error:
            code, words = status_of(error, "/podplane.v1.Batch/Write")
            return batch_pb2.BatchResult(code=code.value[0], message=words)
        return batch_pb2.BatchResult(code=0, resourceVersion=obj.metadata.resourceVersion)

    def _perform(self, write: batch_pb2.BatchWrite, call: Call) -> Awaitable[Any]:
        if write.verb == "delete":
            kind, delete = _kind(write.kind), write.delete
            _authorize(call, "delete", kind.plural, kind, delete)
            return self._verbs[kind.name].delete(delete, call)
        if write.verb == "bind":
            _authorize(call, "create", "pods/binding", POD, write.bind)
            return self._verbs["Pod"].bind(write.bind, call)
        if write.verb not in _VERBS:
            raise Invalid(f'verb: "{write.verb}" is not one of {", ".join(_VERBS)}, delete, bind')
        kind = _kind(write.object.TypeName().removeprefix("podplane.v1."))
        obj: Any = kind.message()
        if not write.object.Unpack(obj):
            raise Invalid(f"object: cannot be read as {kind.name}")
        verb, subresource, method = _VERBS[write.verb]
        _authorize(call, verb, kind.plural + subresource, kind, obj.metadata)
        performed: Awaitable[Any] = getattr(self._verbs[kind.name], method)(obj, call)
        return performed


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise Invalid(f'kind: "{name}" is not one that is stored')
    return KINDS[name]


def _authorize(call: Call, verb: str, resource: str, kind: Kind, named: Any) -> None:
    if kind.namespaced and not named.namespace:
        named.namespace = DEFAULT_NAMESPACE
    call.require(Attempt(verb, resource, named.namespace if kind.namespaced else "", named.name))

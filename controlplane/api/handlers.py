"""The verbs, one implementation each for every kind. What a method may do was decided before (grpc_server.py).

Get, List and Watch answer with the stored bytes; the writes go through Objects, which admits and stores. Owns
nothing but the pager. Errors are PodplaneErrors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from controlplane.api.access import Rule
from controlplane.api.authz import Attempt
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.api.paging import Pager, Query
from controlplane.api.selection import predicate
from controlplane.api.watching import watch
from controlplane.objects import Objects
from podplane.errors import Conflict, Invalid
from podplane.kinds import DEPLOYMENT, POD, REPLICA_SET, Kind
from podplane.v1 import requests_pb2

DEFAULT_NAMESPACE = "default"
PROPAGATION = ("Background", "Foreground", "Orphan")


def attempt_of(kind: Kind) -> Any:
    """Reads what a request attempts, and fills in the namespace that it leaves out (never for list and watch)."""

    def attempt(rule: Rule, request: Any) -> Attempt:
        named = request.metadata if "metadata" in request.DESCRIPTOR.fields_by_name else request
        if not kind.namespaced:
            return Attempt(rule.verb, rule.resource, "", getattr(named, "name", ""))
        if not named.namespace and rule.verb not in ("list", "watch"):
            named.namespace = DEFAULT_NAMESPACE
        return Attempt(rule.verb, rule.resource, named.namespace, getattr(named, "name", ""))

    return attempt


class Verbs:
    """The methods of one kind's service."""

    def __init__(self, kind: Kind, objects: Objects, pager: Pager) -> None:
        self._kind = kind
        self._objects = objects
        self._pager = pager

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        methods: dict[str, Behaviour] = {
            "Create": self.create,
            "Get": self.get,
            "List": self.list,
            "Update": self.update,
            "Apply": self.apply,
            "Delete": self.delete,
            "Watch": self.watch,
            "UpdateStatus": self.update_status,
        }
        if self._kind is POD:
            methods |= {"Bind": self.bind, "Evict": self.evict}
        if self._kind in (DEPLOYMENT, REPLICA_SET):
            methods["Scale"] = self.scale
        return methods

    async def create(self, request: Any, call: Call) -> Any:
        return await self._writer(call).create(self._typed(request))

    async def get(self, request: requests_pb2.GetRequest, _call: Call) -> bytes:
        self._named(request.name)
        return self._objects.stored(self._kind, request.namespace, request.name).wire

    async def list(self, request: requests_pb2.ListRequest, call: Call) -> bytes:
        kind, namespace = self._kind, request.namespace
        query = Query(kind.name, namespace, request.labelSelector, request.fieldSelector, call.identity.username)
        if request.limit < 0:
            raise Invalid("limit: must not be negative")
        token = getattr(request, "continue")
        if token:
            return self._pager.more(kind, query, token, request.limit)
        wanted = predicate(kind, query.labels, query.fields)
        cache = self._objects.cache
        items = cache.list(kind, namespace or None)
        if wanted is not None:
            items = [stored for stored in items if wanted(stored.obj)]
        return self._pager.first(kind, query, items, cache.revision, request.limit)

    def watch(self, request: requests_pb2.WatchRequest, _call: Call) -> AsyncIterator[bytes]:
        return watch(self._objects.cache, self._kind, request)

    async def update(self, request: Any, call: Call) -> Any:
        self._named(request.metadata.name)
        return await self._writer(call).update(self._typed(request))

    async def apply(self, request: Any, call: Call) -> Any:
        """Needs `patch` (checked before), and `create` where the object is not there yet."""
        self._named(request.metadata.name)
        namespace, name = request.metadata.namespace, request.metadata.name
        if self._objects.cache.get(self._kind, namespace, name) is None:
            call.require(Attempt("create", self._kind.plural, namespace, name))
        return await self._writer(call).apply(self._typed(request))

    async def update_status(self, request: Any, call: Call) -> Any:
        self._named(request.metadata.name)
        return await self._writer(call).update_status(self._typed(request))

    async def delete(self, request: requests_pb2.DeleteRequest, call: Call) -> Any:
        self._named(request.name)
        grace = request.gracePeriodSeconds if request.HasField("gracePeriodSeconds") else None
        if grace is not None and grace < 0:
            raise Invalid("gracePeriodSeconds: must not be negative")
        propagation = request.propagationPolicy or "Background"
        if propagation not in PROPAGATION:
            raise Invalid(f'propagationPolicy: "{propagation}" is not one of {", ".join(PROPAGATION)}')
        return await self._writer(call).delete(
            self._kind,
            request.namespace,
            request.name,
            uid=request.preconditions.uid or None,
            revision=revision_of(request.preconditions.resourceVersion),
            grace=grace,
            propagation=propagation,
        )

    async def bind(self, request: requests_pb2.BindRequest, call: Call) -> Any:
        self._named(request.name)
        if not request.nodeName:
            raise Invalid("nodeName: is required")
        return await self._writer(call).bind(
            request.namespace,
            request.name,
            request.nodeName,
            uid=request.preconditions.uid or None,
            revision=revision_of(request.preconditions.resourceVersion),
        )

    async def evict(self, request: requests_pb2.EvictRequest, call: Call) -> Any:
        """As a delete: no disruption budgets exist that could refuse it."""
        delete = requests_pb2.DeleteRequest(
            namespace=request.namespace, name=request.name, preconditions=request.preconditions
        )
        if request.HasField("gracePeriodSeconds"):
            delete.gracePeriodSeconds = request.gracePeriodSeconds
        return await self.delete(delete, call)

    async def scale(self, request: requests_pb2.ScaleRequest, call: Call) -> Any:
        self._named(request.name)
        if not request.HasField("replicas") or request.replicas < 0:
            raise Invalid("replicas: is required and must not be negative")
        revision = revision_of(request.preconditions.resourceVersion)

        def change(obj: Any) -> bool:
            if revision is not None and obj.metadata.resourceVersion != str(revision):
                raise Conflict(f"cannot scale {self._kind.qualified(request.name)}: it has been changed; read it again")
            if obj.spec.HasField("replicas") and obj.spec.replicas == request.replicas:
                return False
            obj.spec.replicas = request.replicas
            return True

        uid = request.preconditions.uid or None
        return await self._writer(call).mutate(self._kind, request.namespace, request.name, change, uid=uid)

    def _writer(self, call: Call) -> Objects:
        return self._objects.rehearsal() if call.dry_run else self._objects

    def _typed(self, obj: Any) -> Any:
        """The object with apiVersion and kind filled in where the request leaves them out."""
        for field, value in (("apiVersion", self._kind.api_version), ("kind", self._kind.name)):
            given = getattr(obj, field)
            if given and given != value:
                raise Invalid(f'{field}: "{given}" is not "{value}", which this service serves')
            setattr(obj, field, value)
        return obj

    def _named(self, name: str) -> None:
        if not name:
            raise Invalid(f"name: is required for {self._kind.plural}")


def revision_of(text: str) -> int | None:
    """A resourceVersion as the revision it is; None where unset."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f'resourceVersion: "{text}" is not one that this server gave')
    return int(text)

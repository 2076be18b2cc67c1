"""The control plane as verbs see it: typed calls by kind, over one gRPC channel.

Owns the channel, the credentials of each call and the deadlines; never prints. Raises the exceptions of
podplane.errors (podctl.errors maps the codes). Calls go by method path, so that a new kind needs no code here.
"""

from __future__ import annotations

import random
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from podctl.durations import seconds_flag
from podctl.errors import from_rpc
from podctl.failure import Failure
from podplane import context
from podplane.errors import Conflict, Invalid, NotFound
from podplane.kinds import Kind, kind_of
from podplane.v1 import requests_pb2

_PAGE = 500
_CONFLICT_PAUSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each further try of a change that another writer came before, at random up to twice as much."""
_Answer = TypeVar("_Answer", bound=Message)
# A dead peer is noticed in 15 s on a quiet watch; the server must permit pings this often. Without the bounds of the
# reconnection, calls go on failing for up to two minutes after a server has come back. Its least is left at 20 s: it is
# also what a connection has for its handshakes.
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 << 20),
]


@dataclass(frozen=True, slots=True)
class Query:
    """Which objects of a kind: a namespace (empty for all) and selectors as typed."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole consistent list and the revision that a watch resumes from."""

    items: list[Any]
    revision: str


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: Any


def connect(args: Namespace) -> Client:
    """A client for what the global flags and the config file say; Failure says what to do where they do not say it."""
    timeout = seconds_flag("--request-timeout", args.request_timeout)
    chosen = choose_context(args)
    client = Client(chosen, timeout=timeout if timeout > 0 else None, verbose=bool(args.verbosity))
    if getattr(args, "dry_run", "none") == "server":
        client.rehearse()
    return client


def choose_context(args: Namespace) -> context.Context:
    """The context of the config file with the flags laid over it."""
    try:
        chosen = _from_file(args)
    except (Invalid, NotFound) as error:
        raise Failure(f"error: {error}") from None
    return _overlaid(chosen, args)


def _from_file(args: Namespace) -> context.Context:
    path = context.find()
    if args.context and path is None:
        raise Failure(f'error: context "{args.context}" does not exist: there is no config file')
    # Another server that another authority vouches for must not be shown this context's token.
    elsewhere = args.server and args.certificate_authority and not args.context
    if path is None or elsewhere:
        return context.Context("flags")
    return context.read(path).context(args.context)


def _overlaid(chosen: context.Context, args: Namespace) -> context.Context:
    authority, token_file = args.certificate_authority, args.token_file
    server = args.server or chosen.server
    if not server:
        raise Failure(
            "error: no control plane to talk to: there is no config file with a context. Start one with 'make up', "
            f"set PODPLANE_CONFIG, write {context.default_path()}, or give --server and --certificate-authority."
        )
    return context.Context(
        name=chosen.name,
        server=server,
        certificate_authority=str(Path(authority).absolute()) if authority else chosen.certificate_authority,
        certificate_authority_data="" if authority else chosen.certificate_authority_data,
        token="" if token_file else chosen.token,
        token_file=str(Path(token_file).absolute()) if token_file else chosen.token_file,
        namespace=args.namespace or chosen.namespace or "default",
    )


class Client:
    """A connection to one control plane as one identity. Use as a context manager.

    gRPC is imported where the first connection is made: --help and wrong command lines need none of it.
    """

    def __init__(self, chosen: context.Context, *, timeout: float | None = 30.0, verbose: bool = False) -> None:
        try:
            authority, token = chosen.authority(), chosen.bearer()
        except Invalid as error:
            raise Failure(f"error: {error}") from None
        self.namespace = chosen.namespace
        self._server = chosen.server
        self._timeout = timeout
        self._verbose = verbose
        import grpc

        self._rpc_error = grpc.RpcError
        self._metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {token}"),) if token else ()
        credentials = grpc.ssl_channel_credentials(root_certificates=authority)
        self._channel = grpc.secure_channel(chosen.server, credentials, options=_CHANNEL_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._channel.close()

    def rehearse(self) -> None:
        """From now on the server checks and answers every write, and stores none."""
        self._metadata = (*self._metadata, ("dry-run", "All"))

    def call(self, method: str, request: Message, answer: type[_Answer]) -> _Answer:
        """One unary call: `Pods/Get`."""
        started = time.monotonic()
        invoke = self._channel.unary_unary(
            f"/podplane.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return invoke(request, timeout=self._timeout, metadata=self._metadata)
        except self._rpc_error as error:
            raise from_rpc(error, self._server) from None
        finally:
            self._log(method, started)

    def stream(
        self, method: str, request: Message, answer: type[_Answer], timeout: float | None = None
    ) -> Iterator[_Answer]:
        """One server-streaming call, until the server ends it or `timeout` seconds are over (Disconnected)."""
        invoke = self._channel.unary_stream(
            f"/podplane.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return self._answers(method, lambda: invoke(request, timeout=timeout, metadata=self._metadata))

    def duplex(self, method: str, requests: Iterator[Message], answer: type[_Answer]) -> Iterator[_Answer]:
        """One call with a stream in both directions, until the server ends it."""
        invoke: Any = self._channel.stream_stream(
            f"/podplane.v1.{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return self._answers(method, lambda: invoke(requests, metadata=self._metadata))

    def _answers(self, method: str, begin: Callable[[], Any]) -> Iterator[Any]:
        started = time.monotonic()
        call = begin()
        try:
            yield from call
        except self._rpc_error as error:
            raise from_rpc(error, self._server) from None
        finally:
            call.cancel()
            self._log(method, started)

    def get(self, kind: Kind, namespace: str, name: str) -> Any:
        """One object; NotFound."""
        request = requests_pb2.GetRequest(namespace=namespace if kind.namespaced else None, name=name)
        return self.call(f"{_service(kind)}/Get", request, kind.message)

    def list(self, kind: Kind, query: Query, chunk: int = _PAGE) -> Page:
        """Every object that the query selects, page after page of one consistent list."""
        items: list[Any] = []
        token = None
        while True:
            request = requests_pb2.ListRequest(**_selectors(kind, query), limit=chunk or None)
            if token:
                setattr(request, "continue", token)
            page: Any = self.call(f"{_service(kind)}/List", request, kind.list_message)
            items.extend(page.items)
            token = getattr(page.metadata, "continue")
            if not token:
                return Page(items, page.metadata.resourceVersion)

    def write(self, verb: str, obj: Message) -> Any:
        """Create, Update, Apply or UpdateStatus an object; the object as it now is."""
        return self.call(f"{_service(kind_of(obj))}/{verb}", obj, type(obj))

    def change(
        self, kind: Kind, namespace: str, name: str, edit: Callable[[Any], bool], verb: str = "Update"
    ) -> tuple[Any, bool]:
        """Read, edit, write by `verb`; again where somebody else was faster. (the object, whether it was written).

        `edit` changes the object in place and returns False where nothing is to be done.
        """
        for pause in (*_CONFLICT_PAUSES, None):
            obj = self.get(kind, namespace, name)
            if not edit(obj):
                return obj, False
            try:
                return self.write(verb, obj), True
            except Conflict:
                # Controllers write the status of what is rolled out again and again.
                if pause is None:
                    raise
            time.sleep(pause * random.uniform(0, 2))
        raise AssertionError("unreachable")

    def delete(
        self, kind: Kind, namespace: str, name: str, *, grace: int | None = None, propagation: str | None = None
    ) -> Any:
        """Begin the deletion; the object as it was or, where it ends gracefully, as it now is."""
        request = requests_pb2.DeleteRequest(
            namespace=namespace if kind.namespaced else None,
            name=name,
            gracePeriodSeconds=grace,
            propagationPolicy=propagation,
        )
        return self.call(f"{_service(kind)}/Delete", request, kind.message)

    def scale(self, kind: Kind, namespace: str, name: str, replicas: int, revision: str | None = None) -> Any:
        """Set spec.replicas of a workload; with a revision, Conflict where it has another by now."""
        request = requests_pb2.ScaleRequest(namespace=namespace, name=name, replicas=replicas)
        if revision:
            request.preconditions.resourceVersion = revision
        return self.call(f"{_service(kind)}/Scale", request, kind.message)

    def watch(
        self, kind: Kind, query: Query, after: str | None = None, timeout: float | None = None
    ) -> Iterator[Change]:
        """Changes after a revision; without one an ADDED for each object, a BOOKMARK, then what changes."""
        request = requests_pb2.WatchRequest(**_selectors(kind, query), resourceVersion=after)
        for frame in self.stream(f"{_service(kind)}/Watch", request, _frame(kind), timeout):
            for event in frame.events:
                yield Change(event.type, event.object)

    def _log(self, method: str, started: float) -> None:
        if self._verbose:
            print(f"{method} {(time.monotonic() - started) * 1000:.0f} ms", file=sys.stderr)


def _service(kind: Kind) -> str:
    """The service of a kind: its plural in camel case, `NetworkPolicies` for NetworkPolicy."""
    shared = next((i for i, (a, b) in enumerate(zip(kind.name.lower(), kind.plural, strict=False)) if a != b), None)
    shared = min(len(kind.name), len(kind.plural)) if shared is None else shared
    return kind.name[:shared] + kind.plural[shared:]


def _frame(kind: Kind) -> type[Any]:
    from google.protobuf.message_factory import GetMessageClass

    frames = kind.message.DESCRIPTOR.file.message_types_by_name
    return GetMessageClass(cast("Descriptor", frames[f"{kind.name}WatchFrame"]))


def _selectors(kind: Kind, query: Query) -> dict[str, str | None]:
    return {
        "namespace": (query.namespace or None) if kind.namespaced else None,
        "labelSelector": query.labels or None,
        "fieldSelector": query.fields or None,
    }

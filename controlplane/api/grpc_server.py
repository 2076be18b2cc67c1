"""The gate that every RPC passes, and the gRPC server behind it.

Owns: authentication and the access rule before any handler runs, the translation of errors to gRPC statuses, and
the set of open streams, which end when their credentials do or the server stops. Handlers neither see gRPC
statuses nor abort calls. An unexpected exception becomes INTERNAL with an id; its words stay in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from controlplane.api.access import EACH, RESOURCE, Rule, rule_for
from controlplane.api.authn import Authenticator, Identity
from controlplane.api.authz import Attempt, Authorizer
from podplane.errors import GRPC_CODES, Invalid, NotSupported, PodplaneError, Unauthenticated
from podplane.metrics import Registry
from podplane.tls import MAX_MESSAGE

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0
"""How long a stream may outlive its credentials."""

DRY_RUN = "dry-run"
"""The metadata key by which a caller asks for a write that is not stored."""

_MESSAGE_LIMIT = 4096
"""Characters of an error's text: it travels in a trailer, and peers bound those."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients ping every second at the most; gRPC's own bound is five minutes and ends their connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    # What one connection may cost: a handshake that dawdles, and streams that it leaves open.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 1_000),
    # Without this a second server would share the port in silence.
    ("grpc.so_reuseport", 0),
)

Answer = Message | bytes
Behaviour = Callable[[Any, "Call"], Awaitable[Answer] | AsyncIterator[Answer]]
"""One RPC's work: (request or request stream, call) to an answer or a stream of answers. Bytes are sent as they are."""


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC in progress: who calls, under which rule."""

    identity: Identity
    rule: Rule
    authorizer: Authorizer
    context: Any

    @property
    def dry_run(self) -> bool:
        """Whether the caller wants to see what a write would leave, and no write: metadata `dry-run: All`."""
        given = [value for key, value in self.context.invocation_metadata() or () if key == DRY_RUN]
        if given not in ([], ["All"]):
            raise Invalid(f"{DRY_RUN}: {given[0]!r} is not supported, only All is")
        return bool(given)

    def require(self, attempt: Attempt) -> None:
        """Forbidden where the caller may not do it."""
        self.authorizer.require(self.identity, attempt)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC as it is served. `attempt` reads from a request what is attempted; None where the rule needs none."""

    path: str
    descriptor: MethodDescriptor
    behaviour: Behaviour
    rule: Rule
    attempt: Callable[[Any], Attempt] | None


def methods_of(
    service: ServiceDescriptor,
    behaviours: dict[str, Behaviour],
    attempt: Callable[[Rule, Any], Attempt] | None = None,
) -> list[Method]:
    """Every RPC of `service`; RuntimeError where one has no behaviour, no rule, or a rule that cannot be applied."""
    found = []
    for descriptor in service.methods:
        path = f"/{service.full_name}/{descriptor.name}"
        rule = rule_for(path)
        if descriptor.name not in behaviours:
            raise RuntimeError(f"cannot serve {path}: nothing implements it")
        if rule.who == RESOURCE and attempt is None:
            raise RuntimeError(f"cannot serve {path}: its rule needs the resource that a request names")
        reader = _reader(rule, attempt) if rule.who == RESOURCE and attempt else None
        found.append(Method(path, descriptor, behaviours[descriptor.name], rule, reader))
    return found


def _reader(rule: Rule, attempt: Callable[[Rule, Any], Attempt]) -> Callable[[Any], Attempt]:
    return lambda request: attempt(rule, request)


@dataclass(slots=True, eq=False)
class _Open:
    """A stream that is open, so that it can be ended from outside with a reason."""

    identity: Identity
    path: str
    task: asyncio.Task[Any]
    reason: PodplaneError | None = None
    writing: bool = False

    def end(self, reason: PodplaneError) -> None:
        """End it now, or where a write is in progress, after that."""
        if self.reason is not None:
            return
        self.reason = reason
        # A call whose write is cancelled half-way never gets its status out: the peer would wait for ever.
        if not self.writing:
            self.task.cancel()

    async def write(self, context: Any, answer: Answer) -> None:
        self.writing = True
        try:
            await context.write(answer)
        finally:
            self.writing = False
        if self.reason is not None:
            raise self.reason


class Gate:
    """Stands before every handler."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer, registry: Registry) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._requests = registry.counter(
            "podplane_requests_total", "Calls that have ended, by gRPC status.", ("method", "code")
        )
        self._seconds = registry.histogram(
            "podplane_request_seconds", "How long calls of one answer took.", ("method",)
        )
        self._open: set[_Open] = set()
        self._closed: PodplaneError | None = None

    def register(self, server: grpc.aio.Server, methods: Iterable[Method]) -> None:
        """Serve `methods` on `server`, each behind the gate."""
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            service, _, name = method.path.lstrip("/").partition("/")
            services.setdefault(service, {})[name] = self._handler(method)
        handlers = [grpc.method_handlers_generic_handler(name, rpcs) for name, rpcs in services.items()]
        server.add_generic_rpc_handlers(handlers)

    async def run(self) -> None:
        """End streams whose credentials have ended, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for stream in list(self._open):
                if not self._authenticator.still_valid(stream.identity):
                    stream.end(Unauthenticated("the credentials of this stream have expired or were revoked"))

    async def end_streams(self, reason: PodplaneError) -> None:
        """End every open stream with `reason`, refuse new ones, and wait until each has ended."""
        self._closed = reason
        streams = list(self._open)
        for stream in streams:
            stream.end(reason)
        if streams:
            await asyncio.wait([stream.task for stream in streams], timeout=5)

    def open_streams(self) -> dict[tuple[str, ...], float]:
        """How many streams are open, by method."""
        return dict(Counter((stream.path,) for stream in self._open))

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        descriptor = method.descriptor
        deserialize = GetMessageClass(descriptor.input_type).FromString
        if descriptor.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(method), deserialize, _serialize)
        if descriptor.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method), deserialize, _serialize)
        return grpc.unary_unary_rpc_method_handler(self._unary(method), deserialize, _serialize)

    def _admit(self, method: Method, context: Any) -> Call:
        identity = self._authorizer.admit(method.rule, self._authenticator.identify(context))
        call = Call(identity, method.rule, self._authorizer, context)
        if method.rule.who == EACH and call.dry_run:
            raise NotSupported(f"{method.path} has no dry run")
        return call

    def _unary(self, method: Method) -> Any:
        behaviour = cast("Callable[[Any, Call], Awaitable[Answer]]", method.behaviour)

        async def serve(request: Any, context: Any) -> Answer:
            began = time.perf_counter()
            try:
                call = self._admit(method, context)
                if method.attempt is not None:
                    call.require(method.attempt(request))
                answer = await behaviour(request, call)
            except BaseException as error:
                await self._fail(context, method, error)
            else:
                self._requests.add(method.path, "OK")
                return answer
            finally:
                self._seconds.observe(time.perf_counter() - began, method.path)

        return serve

    def _streaming(self, method: Method) -> Any:
        behaviour = cast("Callable[[Any, Call], AsyncIterator[Answer]]", method.behaviour)

        async def serve(request: Any, context: Any) -> None:
            try:
                call = self._admit(method, context)
                if method.attempt is not None:
                    call.require(method.attempt(request))
                with self._opened(call, method.path) as stream:
                    # Written by hand: a generator given to gRPC is not closed when its peer goes away.
                    async with contextlib.aclosing(cast(Any, behaviour(request, call))) as answers:
                        async for answer in answers:
                            await stream.write(context, answer)
            except BaseException as error:
                await self._fail(context, method, error)
            self._requests.add(method.path, "OK")

        return serve

    async def _fail(self, context: Any, method: Method, error: BaseException) -> NoReturn:
        """End the call with the status that `error` means."""
        if isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
            self._requests.add(method.path, "CANCELLED")
            raise error
        code, words = status_of(error, method.path)
        self._requests.add(method.path, code.name)
        await context.abort(code, words)
        raise AssertionError("abort returns never")

    @contextlib.contextmanager
    def _opened(self, call: Call, path: str) -> Iterator[_Open]:
        if self._closed is not None:
            raise self._closed
        task = asyncio.current_task()
        assert task is not None
        stream = _Open(call.identity, path, task)
        self._open.add(stream)
        try:
            yield stream
        except asyncio.CancelledError:
            if stream.reason is None:
                raise
            task.uncancel()
            raise stream.reason from None
        finally:
            self._open.discard(stream)


def _serialize(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def status_of(error: Exception, where: str) -> tuple[grpc.StatusCode, str]:
    """The gRPC status of an error; an unexpected one is logged under an id and told as that id only."""
    if isinstance(error, PodplaneError):
        name = next(GRPC_CODES[cls] for cls in type(error).__mro__ if cls in GRPC_CODES)
        words = str(error)
        return grpc.StatusCode[name], words if len(words) <= _MESSAGE_LIMIT else words[:_MESSAGE_LIMIT] + " ..."
    identifier = secrets.token_hex(4)
    logger.error("unexpected error", exc_info=error, extra={"id": identifier, "method": where})
    return grpc.StatusCode.INTERNAL, f"internal error {identifier}: the control plane's log says more under this id"

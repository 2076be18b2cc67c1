"""A real control plane on loopback for tests: real TLS, real store, real gRPC clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.message_factory import GetMessageClass

from controlplane.config import Address, Config
from controlplane.pki import Authority
from controlplane.server import ControlPlane, open_objects
from controlplane.tokens import BOOTSTRAP, Tokens
from podplane.kinds import NAMESPACE
from podplane.tls import CHANNEL_OPTIONS, node_channel_credentials, token_channel_credentials
from podplane.v1 import batch_pb2, cluster_pb2, diagnosis_pb2, metrics_pb2, services_pb2, session_pb2

FILES = (services_pb2, batch_pb2, cluster_pb2, diagnosis_pb2, metrics_pb2, session_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every RPC of the protos, by path."""

DEADLINE = 10.0


class Client:
    """Calls any RPC by `Service/Method`; aio calls are returned as gRPC makes them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def call(self, name: str, request: Any = None, **options: Any) -> Any:
        path = name if name.startswith("/") else f"/podplane.v1.{name}"
        method = METHODS[path]
        shape: Any = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }[method.client_streaming, method.server_streaming]
        made: Any = shape(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        if not method.server_streaming:
            options.setdefault("timeout", DEADLINE)
        return made(**options) if method.client_streaming and request is None else made(request, **options)


class Plane:
    """A control plane that runs, and the clients of it."""

    def __init__(self, control: ControlPlane) -> None:
        self.control = control
        self.state = control.config.state
        self.tokens = Tokens(self.state / "tokens")
        self.authority = control.authority
        self._channels: list[grpc.aio.Channel] = []

    def anonymous(self, token: str | None = None) -> Client:
        """A client on the people's port with this token, or none."""
        return self._client(self.control.port, token_channel_credentials(self.authority.certificate, token))

    def person(self, role: str = "admin", user: str = "bob", ttl: float | None = 3600) -> Client:
        return self.anonymous(self.tokens.create(user, role, ttl))

    def joining(self) -> Client:
        return self.anonymous(self.tokens.create("system:bootstrap", BOOTSTRAP, 60))

    def node(self, name: str) -> Client:
        """A client on the nodes' port with a certificate for this node."""
        key, request = node_request(f"system:node:{name}")
        certificate = self.authority.sign_node(request, name).encode()
        return self._client(
            self.control.node_port, node_channel_credentials(self.authority.certificate, certificate, key)
        )

    def _client(self, port: int, credentials: grpc.ChannelCredentials) -> Client:
        # A pool of its own: channels of different credentials must not share a connection.
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(f"localhost:{port}", credentials, options=options)
        self._channels.append(channel)
        return Client(channel)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self.control.close()


def node_request(common: str, organization: str = "system:nodes") -> tuple[bytes, str]:
    """A key (PEM) and a certificate signing request (PEM) of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common))
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, request.public_bytes(serialization.Encoding.PEM).decode()


def config(state: Path, **changes: Any) -> Config:
    return Config(state=state, listen=Address("127.0.0.1", 0), node_listen=Address("127.0.0.1", 0), **changes)


async def initialise(state: Path) -> None:
    """What `init` does, without the context file."""
    state.mkdir(mode=0o700, exist_ok=True)
    Authority.create(state / "pki")
    log, objects = await open_objects(state)
    if objects.cache.get(NAMESPACE, "", "default") is None:
        await objects.create(NAMESPACE.message(metadata={"name": "default"}))
    await log.close()


@contextlib.asynccontextmanager
async def running(state: Path, **changes: Any) -> AsyncIterator[Plane]:
    """A control plane on `state`, made where there is none."""
    if not (state / "store.sqlite").exists():
        await initialise(state)
    plane = Plane(await ControlPlane.open(config(state, **changes)))
    try:
        yield plane
    finally:
        await plane.close()


async def status(call: Any) -> tuple[str, str]:
    """How a call fails: the code's name and the words. AssertionError where it does not fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError("the call succeeded")

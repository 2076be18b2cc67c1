"""START HERE: the composition root of the control plane. Read `ControlPlane.open` from top to bottom.

    store ─► watch cache ─► objects ─┬─► api (people, 7443)      controlplane/api
                                     ├─► node sessions (7444)    controlplane/nodes
                                     ├─► scheduler               controlplane/scheduler
                                     └─► controllers             controlplane/controllers

Owns the order of starting and stopping, and nothing that happens in between. A background task that ends
unexpectedly ends the daemon with its reason and exit status 1; SIGTERM and SIGINT end it cleanly with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from controlplane.api import diagnosis, usage
from controlplane.api.admission import Admission
from controlplane.api.admission_context import AdmissionSettings
from controlplane.api.authn import Authenticator
from controlplane.api.authz import Authorizer
from controlplane.api.batch import Batch
from controlplane.api.cluster import HEALTH, REFLECTION, Cluster, Health, reflection
from controlplane.api.grpc_server import SERVER_OPTIONS, Behaviour, Gate, Method, methods_of
from controlplane.api.handlers import Verbs, attempt_of
from controlplane.api.logs import PodLogs
from controlplane.api.paging import Pager
from controlplane.api.streaming import InteractiveStreams
from controlplane.commands import is_initialised, server_names, uninitialised
from controlplane.config import Address, Config
from controlplane.controllers import Queues, start_all
from controlplane.metrics import describe
from controlplane.nodes import NodeSettings, Sessions
from controlplane.nodes.service import NodeService
from controlplane.objects import Objects
from controlplane.pki import Authority
from controlplane.scheduler import Scheduler
from controlplane.store import compaction
from controlplane.store.cache import WatchCache
from controlplane.store.log import Log
from controlplane.store.sqlite import SqliteLog
from controlplane.tokens import Tokens
from podplane.errors import Unavailable
from podplane.kinds import KINDS, POD
from podplane.metrics import Registry
from podplane.metrics_server import MetricsServer
from podplane.tasks import TaskEnded, Tasks
from podplane.v1 import batch_pb2, cluster_pb2, diagnosis_pb2, metrics_pb2, services_pb2, session_pb2

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""What calls in progress have, when the server stops."""


async def open_objects(
    state: Path,
    settings: AdmissionSettings = AdmissionSettings(),  # noqa: B008 - frozen
) -> tuple[SqliteLog, Objects]:
    """The store of a state directory; it is made where there is none. A second process is refused."""
    log = await SqliteLog.open(state)
    cache = await WatchCache.open(log)
    return log, Objects(log, cache, Admission(), time.time, settings)


class ControlPlane:
    """One running control plane."""

    def __init__(self, config: Config, log: SqliteLog, objects: Objects) -> None:
        self.config = config
        self.log = log
        self.objects = objects
        self.authority = Authority(config.state / "pki")
        self.tasks = Tasks()
        times = NodeSettings(config.heartbeat, config.node_grace, config.cluster_cidr, config.service_cidr)
        self.sessions = Sessions(objects, times, self.tasks)
        self.scheduler = Scheduler(objects)
        self.metrics = Registry()
        self.gate = Gate(
            Authenticator(Tokens(config.state / "tokens")), Authorizer(self.sessions.hub.placement), self.metrics
        )
        self.queues: Queues = {}
        describe(self.metrics, log, objects, self.gate, self.sessions, self.scheduler, self.queues)
        self.port = 0
        self.node_port = 0
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS))
        self.metrics_server: MetricsServer | None = None

    @classmethod
    async def open(cls, config: Config) -> ControlPlane:
        """Everything, in order; when this returns, both ports answer."""
        if not is_initialised(config.state):
            raise ValueError(uninitialised(config.state))
        log, objects = await open_objects(
            config.state,
            AdmissionSettings(service_cidr=config.service_cidr, toleration_seconds=config.toleration),
        )
        plane = cls(config, log, objects)
        plane.gate.register(plane._server, plane.methods())
        try:
            plane._listen()
            if config.metrics is not None:
                plane.metrics_server = await MetricsServer.open(plane.metrics, *config.metrics)
        except BaseException:
            await log.close()
            raise
        plane._start_tasks()
        await plane._server.start()
        logger.info("serving", extra={"listen": plane.port, "node_listen": plane.node_port})
        return plane

    def methods(self) -> list[Method]:
        """Every RPC that is served."""
        pager = Pager()
        verbs = {kind.name: Verbs(kind, self.objects, pager) for kind in KINDS.values()}
        found = [method for kind in KINDS.values() for method in self._methods_of_kind(verbs[kind.name], kind.name)]
        batch = Batch(verbs)
        node_service = NodeService(self.sessions, self.authority, self.log, lambda: self.node_port)
        found += methods_of(_service(batch_pb2, "Batch"), {"Write": batch.write})
        measured = usage.Metrics(self.objects, self.sessions)
        found += methods_of(_service(metrics_pb2, "Metrics"), measured.behaviours(), usage.attempt)
        asked = diagnosis.Diagnosis(self.objects, self.sessions)
        found += methods_of(_service(diagnosis_pb2, "Diagnosis"), asked.behaviours(), diagnosis.attempt)
        found += methods_of(_service(cluster_pb2, "Cluster"), Cluster(self.log).behaviours())
        found += methods_of(_service(session_pb2, "Bootstrap"), node_service.bootstrap())
        found += methods_of(_service(session_pb2, "NodeSessions"), node_service.node_sessions())
        names = sorted({method.descriptor.containing_service.full_name for method in found})
        return [
            *found,
            *methods_of(HEALTH, Health(names).behaviours()),
            *methods_of(REFLECTION, reflection(names)),
        ]

    def _methods_of_kind(self, verbs: Verbs, name: str) -> list[Method]:
        kind = KINDS[name]
        behaviours: dict[str, Behaviour] = verbs.behaviours()
        if kind is POD:
            behaviours |= PodLogs(self.objects, self.sessions).behaviours()
            behaviours |= InteractiveStreams(self.objects, self.sessions).behaviours()
        service = next(
            found for found in services_pb2.DESCRIPTOR.services_by_name.values() if found.name.lower() == kind.plural
        )
        return methods_of(service, behaviours, attempt_of(kind))

    def _listen(self) -> None:
        """People with a token on one port, nodes with a certificate on the other: TLS has no "maybe"."""
        people = _credentials(self.authority, self.config, require_client=False)
        nodes = _credentials(self.authority, self.config, require_client=True)
        self.port = self._bind(self.config.listen, people)
        self.node_port = self._bind(self.config.node_listen, nodes)

    def _bind(self, address: Address, credentials: grpc.ServerCredentials) -> int:
        try:
            return self._server.add_secure_port(str(address), credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is the port in use?") from error

    def _start_tasks(self) -> None:
        self.tasks.start(_failure(self.log), name="store")
        self.tasks.start(compaction.run(self.log), name="compaction")
        self.tasks.start(self.gate.run(), name="gate")
        self.tasks.start(self.sessions.run(), name="node-sessions")
        self.tasks.start(self.scheduler.run(), name="scheduler")
        start_all(self.objects, self.sessions, self.config, self.tasks, self.queues)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; TaskEnded where a background task ends before."""
        failed = asyncio.create_task(self.tasks.wait())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
        finally:
            for task in (failed, stopped):
                task.cancel()
            await asyncio.gather(failed, stopped, return_exceptions=True)

    async def close(self) -> None:
        """Streams end first, then calls, then tasks; the store is closed last."""
        await self.gate.end_streams(Unavailable("the control plane is stopping: connect again"))
        await self._server.stop(GRACE_SECONDS)
        await self.tasks.stop()
        if self.metrics_server is not None:
            await self.metrics_server.close()
        self.objects.cache.close()
        await self.log.close()


def _service(module: object, name: str) -> ServiceDescriptor:
    service: ServiceDescriptor = module.DESCRIPTOR.services_by_name[name]  # type: ignore[attr-defined]
    return service


def _credentials(authority: Authority, config: Config, *, require_client: bool) -> grpc.ServerCredentials:
    """Server credentials that take a renewed certificate up by themselves."""
    names = server_names(config.advertise)

    def configuration() -> grpc.ServerCertificateConfiguration:
        identity = authority.server_identity(names)
        root = authority.certificate if require_client else None
        return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], root_certificates=root)

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        _hourly(configuration),  # type: ignore[arg-type]  # None is allowed, and means "as before"
        require_client_authentication=require_client,
    )


def _hourly(
    make: Callable[[], grpc.ServerCertificateConfiguration],
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """gRPC asks at every handshake; None says that nothing has changed."""
    made = time.monotonic()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal made
        if time.monotonic() - made < 3600:
            return None
        made = time.monotonic()
        return make()

    return fetch


async def _failure(log: Log) -> None:
    """Ends where the store has failed: no write succeeds any more, so the daemon must not go on."""
    raise RuntimeError(await asyncio.shield(log.failed))


async def serve(config: Config) -> int:
    """Run until SIGTERM; the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    plane = await ControlPlane.open(config)
    try:
        await plane.run(stop)
    except TaskEnded as ended:
        logger.error("%s", ended, exc_info=ended.__cause__)
        return 1
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await plane.close()
    logger.info("stopped")
    return 0

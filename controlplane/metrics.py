"""What the control plane tells of itself: one table of metrics, read off its parts.

podplane_store_commits_total              groups of writes that were synced to disk
podplane_store_writes_total               writes in them
podplane_store_revision                   the newest revision
podplane_objects{kind}                    objects in the store
podplane_requests_total{method,code}      calls that have ended, by method and gRPC status
podplane_request_seconds{method}          how long calls of one answer took (histogram)
podplane_open_streams{method}             streams that are open; watchers are those of methods .../Watch
podplane_node_sessions                    nodes that are connected
podplane_scheduler_queue_pods{queue}      pods that wait: active, backoff, unschedulable, binding
podplane_controller_queue{controller}     objects that wait to be looked at: deployments, replicasets, endpoints ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.api.grpc_server import Gate
from controlplane.controllers import Queues
from controlplane.nodes import Sessions
from controlplane.objects import Objects
from controlplane.scheduler import Scheduler
from controlplane.store.log import Change, Log
from podplane.kinds import KINDS
from podplane.metrics import Registry, Values


def describe(
    registry: Registry,
    log: Log,
    objects: Objects,
    gate: Gate,
    sessions: Sessions,
    scheduler: Scheduler,
    controllers: Queues,
) -> None:
    """Add every metric but the gate's own, which counts requests itself."""
    commits = registry.counter("podplane_store_commits_total", "Groups of writes that were synced to disk.")
    writes = registry.counter("podplane_store_writes_total", "Writes of the store.")

    def count(changes: Sequence[Change]) -> None:
        commits.add()
        writes.add(by=len(changes))

    log.subscribe(count)
    registry.gauge("podplane_store_revision", "The newest revision of the store.", lambda: log.revision)
    registry.gauge("podplane_objects", "Objects in the store.", lambda: _objects(objects), ("kind",))
    registry.gauge("podplane_open_streams", "Streams that are open.", gate.open_streams, ("method",))
    registry.gauge("podplane_node_sessions", "Nodes that are connected.", lambda: len(sessions.connected()))
    registry.gauge("podplane_scheduler_queue_pods", "Pods without a node.", lambda: _queues(scheduler), ("queue",))
    words = "Objects that wait to be looked at by a controller."
    registry.gauge("podplane_controller_queue", words, lambda: _depths(controllers), ("controller",))


def _objects(objects: Objects) -> Mapping[Values, float]:
    return {(kind.name,): objects.cache.count(kind) for kind in KINDS.values()}


def _queues(scheduler: Scheduler) -> Mapping[Values, float]:
    return {(name,): depth for name, depth in scheduler.depths().items()}


def _depths(queues: Queues) -> Mapping[Values, float]:
    return {(controller,): len(queue) for controller, queue in queues.items()}

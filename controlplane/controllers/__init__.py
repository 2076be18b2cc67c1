"""The controllers: each makes one aspect of the cluster be as its objects say, again and again.

Start at loop.py, which is what they are made of; then replicaset.py, the plainest of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from controlplane.controllers import deployment, endpoints, garbage, namespaces, nodes, replicaset
from controlplane.controllers.queue import WorkQueue
from controlplane.controllers.recorder import Recorder
from controlplane.objects import Objects
from podplane.tasks import Tasks


class Settings(Protocol):
    """What the controllers need of the configuration."""

    @property
    def node_grace(self) -> int:
        """Seconds of silence after which a node is not ready."""


Queues = dict[str, WorkQueue[Any]]
"""What waits to be looked at, by controller. The node controller looks at all nodes at once, and has none."""


def start_all(
    objects: Objects,
    sessions: nodes.Heard,
    settings: Settings,
    tasks: Tasks,
    queues: Queues,
    clock: Callable[[], float] = time.time,
) -> None:
    """Start every controller as a named task; one that ends ends the daemon. Adds their queues to `queues`."""

    def queue(controller: str) -> WorkQueue[Any]:
        return queues.setdefault(controller, WorkQueue())

    def recorder(component: str) -> Recorder:
        made = Recorder(objects, component, clock)
        tasks.start(made.run(), name=f"events of {component}")
        return made

    sets, deployments, lifecycle = map(recorder, ("replicaset-controller", "deployment-controller", "node-controller"))
    tasks.start(namespaces.run(objects, queue("namespaces")), name="namespace controller")
    tasks.start(replicaset.run(objects, queue("replicasets"), sets, clock), name="replicaset controller")
    tasks.start(deployment.run(objects, queue("deployments"), deployments, clock), name="deployment controller")
    tasks.start(endpoints.run(objects, queue("endpoints")), name="endpoints controller")
    tasks.start(nodes.run(objects, sessions, lifecycle, settings.node_grace, clock), name="node controller")
    tasks.start(garbage.run(objects, queue("garbage"), clock), name="garbage controller")

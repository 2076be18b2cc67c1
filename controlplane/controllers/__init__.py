"""The controllers: each makes one aspect of the cluster be as its objects say, again and again.

Start at loop.py, which is what they are made of; then replicaset.py, the plainest of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from controlplane.controllers import deployment, endpoints, garbage, namespaces, nodes, replicaset
from controlplane.controllers.recorder import Recorder
from controlplane.objects import Objects
from podplane.tasks import Tasks


class Settings(Protocol):
    """What the controllers need of the configuration."""

    @property
    def node_grace(self) -> int:
        """Seconds of silence after which a node is not ready."""


def start_all(
    objects: Objects, sessions: nodes.Heard, settings: Settings, tasks: Tasks, clock: Callable[[], float] = time.time
) -> None:
    """Start every controller as a named task; one that ends ends the daemon."""

    def recorder(component: str) -> Recorder:
        made = Recorder(objects, component, clock)
        tasks.start(made.run(), name=f"events of {component}")
        return made

    sets, deployments, lifecycle = map(recorder, ("replicaset-controller", "deployment-controller", "node-controller"))
    tasks.start(namespaces.run(objects), name="namespace controller")
    tasks.start(replicaset.run(objects, sets, clock), name="replicaset controller")
    tasks.start(deployment.run(objects, deployments, clock), name="deployment controller")
    tasks.start(endpoints.run(objects), name="endpoints controller")
    tasks.start(nodes.run(objects, sessions, lifecycle, settings.node_grace, clock), name="node controller")
    tasks.start(garbage.run(objects, clock), name="garbage controller")

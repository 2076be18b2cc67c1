"""All controllers together, as the daemon starts them."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.controllers import Queues, start_all
from podplane.kinds import NAMESPACE
from podplane.tasks import Tasks
from tests.controlplane.controllers.test_workloads import complete, web
from tests.controlplane.controllers.world import World


@dataclass(frozen=True)
class Settings:
    node_grace: int = 12


class NobodyHeard:
    def last_seen(self, name: str) -> float | None:
        return None


async def test_all_controllers_start_work_and_stop(world: World) -> None:
    tasks, queues = Tasks(), Queues()
    start_all(world.objects, NobodyHeard(), Settings(), tasks, queues)
    world.start(tasks.wait())
    world.start(world.play_nodes())
    await world.until(lambda: world.objects.cache.get(NAMESPACE, "", "kube-system"))
    await world.add_node("node-1")
    await world.objects.create(web(2))
    await world.until(lambda: complete(world, "one", 2))
    await world.until(lambda: not any(map(len, queues.values())))
    assert set(queues) == {"deployments", "replicasets", "endpoints", "namespaces", "garbage"}
    await tasks.stop()

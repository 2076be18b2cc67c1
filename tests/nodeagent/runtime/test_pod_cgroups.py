"""The tree of pods in the real kernel, of whichever cgroup version it has: what was asked for is what it enforces."""

from __future__ import annotations

import os

from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.limits import settings
from nodeagent.runtime.pod_cgroups import PodCgroups
from nodeagent.types import Resources

from .conftest import Node, ran

ALL = Resources(cpu_request=1500, memory_limit=1 << 30, pids_limit=20_000)
POD = Resources(cpu_request=250, cpu_limit=500, memory_limit=128 << 20, pids_limit=300)


def read(cgroup: str, controller: str, file: str) -> str:
    return (Cgroups.detect().tree_of(controller) / cgroup / file).read_text().strip()


def enforced(cgroup: str, asked: Resources) -> bool:
    """Whether the kernel has every setting of `asked`; v1 spells no memory limit as a huge number."""
    for controller, file, text in settings(asked, Cgroups.detect().version):
        found = read(cgroup, controller, file)
        if found != text and not (text == "-1" and int(found) > 1 << 60):
            return False
    return True


def test_pods_are_limited_and_weighed_in_the_tree_of_their_class(node: Node) -> None:
    tree = PodCgroups(Cgroups.detect(), node.cgroup)
    tree.open(ALL)
    burstable = f"{node.cgroup}/burstable/poduid-1"
    for _ in range(2):  # done again, finds it done
        tree.make(burstable, POD)
    tree.weigh_burstable(250)
    assert enforced(node.cgroup, ALL)
    assert enforced(f"{node.cgroup}/besteffort", Resources())
    assert enforced(burstable, POD)
    assert not enforced(f"{node.cgroup}/burstable", Resources())


async def test_a_containers_limits_are_the_kernels(node: Node, runtime: ContainerRuntime) -> None:
    PodCgroups(Cgroups.detect(), node.cgroup).open(Resources())
    asked = Resources(cpu_request=100, cpu_limit=200, memory_limit=64 << 20)
    request = node.request("/bin/sleep", "1000", resources=asked, cgroup=f"{node.cgroup}/poduid-1/app_0")
    await runtime.create(request)
    await runtime.start(request.id)
    version = Cgroups.detect().version
    wanted = [item for item in settings(asked, version) if item[0] != "pids"]
    found = [(controller, file, read(request.cgroup, controller, file)) for controller, file, _ in wanted]
    assert found == wanted
    assert int(read(request.cgroup, "pids", "pids.max")) == runtime.facts.pids_limit
    await runtime.remove(request.id)
    assert not any(map(os.path.exists, Cgroups.detect().paths(request.cgroup)))


async def test_a_fork_bomb_meets_the_pods_limit_and_its_neighbour_does_not(
    node: Node, runtime: ContainerRuntime
) -> None:
    tree = PodCgroups(Cgroups.detect(), node.cgroup)
    tree.open(Resources())
    tree.make(f"{node.cgroup}/poduid-1", Resources(pids_limit=20))
    bomb = "for i in $(seq 100); do sleep 30 & done; echo survived; kill 0"
    end = await ran(runtime, node.request("/bin/sh", "-c", bomb))
    assert end.code != 0
    assert "survived" not in node.log(node.request())
    neighbour = node.request("/bin/true", name="neighbour", cgroup=f"{node.cgroup}/poduid-2/app_0")
    assert (await ran(runtime, neighbour)).code == 0

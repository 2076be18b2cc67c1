"""Who goes first, in which words, who is never taken, and what a node under pressure refuses."""

from __future__ import annotations

import pytest

from nodeagent.pressure.ranking import ContainerUse, PodUse, beyond_disk_limits, has_disk_limit, message, ranked
from nodeagent.pressure.refusal import refuse
from nodeagent.pressure.thresholds import DISK, INODES, MEMORY, PIDS, Signal, read_thresholds
from podplane.v1.pod_pb2 import Pod
from podplane.v1.volume_pb2 import EmptyDirVolumeSource

MI = 1 << 20


def pod(name: str, *, memory: str = "", disk: str = "", priority: int = 0) -> Pod:
    made = Pod()
    made.metadata.name = made.metadata.uid = name
    container = made.spec.containers.add(name="main", image="host")
    if memory:
        container.resources.requests["memory"] = memory
    if disk:
        container.resources.limits["ephemeral-storage"] = disk
    made.spec.priority = priority
    return made


def use(name: str, memory: int = 0, disk: int = 0, pids: int = 0, *, asks: str = "", priority: int = 0) -> PodUse:
    made = pod(name, memory=asks, priority=priority)
    of = (ContainerUse("main", memory, disk),)
    return PodUse(made, memory=memory, disk=disk, inodes=disk // MI, pids=pids, containers=of)


def names(uses: list[PodUse]) -> list[str]:
    return [each.pod.metadata.name for each in uses]


def test_for_memory_those_beyond_their_request_go_first_then_by_priority_then_by_how_much() -> None:
    uses = [
        use("within", 900 * MI, asks="1Gi"),
        use("beyond-a-little", 60 * MI, asks="50Mi"),
        use("beyond-a-lot", 500 * MI, asks="100Mi"),
        use("beyond-important", 800 * MI, asks="100Mi", priority=10),
        use("without-request", 200 * MI),
        use("system", 5000 * MI, priority=2_000_000_000),
    ]
    order = ["beyond-a-lot", "without-request", "beyond-a-little", "beyond-important", "within"]
    assert names(ranked(uses, MEMORY)) == order


def test_for_pids_by_priority_then_by_number() -> None:
    uses = [use("few", pids=2), use("many", pids=900), use("important", pids=2000, priority=5)]
    assert names(ranked(uses, PIDS)) == ["many", "few", "important"]


def test_for_the_disk_who_holds_next_to_nothing_is_left_alone() -> None:
    uses = [use("idle", disk=MI - 1), use("writer", disk=300 * MI), use("small", disk=2 * MI)]
    assert names(ranked(uses, DISK)) == ["writer", "small"]
    assert names(ranked(uses, INODES)) == ["writer"]


def test_the_words_are_the_kubelets() -> None:
    (threshold,) = read_thresholds("memory.available<100Mi")
    said = message(use("web", 200 * MI, asks="50Mi"), threshold, Signal(64 * MI + 1, 16 << 30))
    assert said == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. "
        "Container main was using 200Mi, request is 50Mi, has larger consumption of memory. "
    )
    (share,) = read_thresholds("nodefs.available<10%")
    said = message(use("web", disk=3 * MI), share, Signal(5 * MI, 100 * MI))
    assert said == (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 10Mi, available: 5Mi. "
        "Container main was using 3Mi, request is 0, has larger consumption of ephemeral-storage. "
    )
    (pids,) = read_thresholds("pid.available<100")
    assert message(use("web"), pids, Signal(7, 32_768)) == (
        "The node was low on resource: pids. Threshold quantity: 100, available: 7. "
    )


def test_a_pod_keeps_its_own_limits_of_local_storage() -> None:
    assert beyond_disk_limits(use("web", disk=10 * MI)) is None
    limited = PodUse(pod("web", disk="10Mi"), disk=10 * MI, containers=(ContainerUse("main", disk=10 * MI),))
    assert beyond_disk_limits(limited) is None
    whole = PodUse(pod("web", disk="10Mi"), disk=11 * MI, containers=(ContainerUse("main", disk=MI),))
    assert beyond_disk_limits(whole) == "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "
    two = pod("web", disk="10Mi")
    two.spec.containers.add(name="other").resources.limits["ephemeral-storage"] = "20Mi"
    one = PodUse(two, disk=12 * MI, containers=(ContainerUse("main", disk=12 * MI), ContainerUse("other")))
    assert beyond_disk_limits(one) == 'Container main exceeded its local ephemeral storage limit "10Mi". '


def test_an_empty_dir_on_the_disk_keeps_its_size_limit() -> None:
    made = pod("web")
    made.spec.volumes.add(name="small").emptyDir.sizeLimit = "1Mi"
    made.spec.volumes.add(name="fast").emptyDir.MergeFrom(EmptyDirVolumeSource(medium="Memory", sizeLimit="1Mi"))
    made.spec.volumes.add(name="any").emptyDir.SetInParent()
    assert has_disk_limit(made.spec)
    assert beyond_disk_limits(PodUse(made, volumes={"small": MI, "any": 9 * MI, "fast": 9 * MI})) is None
    words = 'Usage of EmptyDir volume "small" exceeds the limit "1Mi". '
    assert beyond_disk_limits(PodUse(made, volumes={"small": MI + 1})) == words


@pytest.mark.parametrize(
    ("short", "made", "refused"),
    [
        (set(), pod("best-effort"), None),
        ({"MemoryPressure"}, pod("best-effort"), "The node had condition: [MemoryPressure]. "),
        ({"MemoryPressure"}, pod("burstable", memory="1Mi"), None),
        ({"DiskPressure"}, pod("burstable", memory="1Mi"), "The node had condition: [DiskPressure]. "),
        ({"PIDPressure", "DiskPressure"}, pod("any"), "The node had condition: [DiskPressure, PIDPressure]. "),
        ({"DiskPressure"}, pod("system", priority=2_000_000_000), None),
    ],
)
def test_under_pressure_the_node_refuses_as_the_kubelet_does(short: set[str], made: Pod, refused: str | None) -> None:
    answer = refuse(made, short)
    assert (answer.message if answer else None) == refused
    assert answer is None or answer.reason == "Evicted"


def test_a_best_effort_pod_that_tolerates_memory_pressure_is_taken() -> None:
    made = pod("tolerant")
    made.spec.tolerations.add(key="node.kubernetes.io/memory-pressure", operator="Exists", effect="NoSchedule")
    assert refuse(made, {"MemoryPressure"}) is None

"""Machine state to PodStatus, in the kubelet's words."""

from __future__ import annotations

from itertools import groupby

from nodeagent.pods import events as did
from nodeagent.pods.status import outline
from podplane.v1.pod_pb2 import PodStatus
from tests.nodeagent.pods.world import World, make_pod


def condition(status: PodStatus, type_: str) -> tuple[str, str, str]:
    found = next(item for item in status.conditions if item.type == type_)
    return found.status, found.reason, found.message


def shown(status: PodStatus) -> str:
    """The STATUS column, for a pod whose containers fail nowhere."""
    for index, init in enumerate(status.initContainerStatuses):
        if not (init.state.HasField("terminated") and init.state.terminated.exitCode == 0):
            return f"Init:{index}/{len(status.initContainerStatuses)}"
    waiting = [c.state.waiting.reason for c in status.containerStatuses if c.state.HasField("waiting")]
    return waiting[0] if waiting else status.phase


def test_a_watch_sees_every_state_of_the_start_in_order() -> None:
    world = World(make_pod(init=2))
    world.run()
    world.succeed("i0", "i1")
    seen = list(dict.fromkeys(map(shown, world.statuses)))
    assert seen == ["Init:0/2", "Init:1/2", "PodInitializing", "Running"]


def test_what_changes_but_details_is_told_with_what_people_wait_for() -> None:
    world = World(make_pod(init=1))
    world.run()
    world.exit("i0", 0)
    world.settle()
    last = [list(found)[-1] for _, found in groupby(world.statuses, outline)]
    seen = [(shown(status), condition(status, "PodReadyToStartContainers")[0]) for status in last]
    assert seen == [("Init:0/1", "True"), ("Init:0/1", "True"), ("PodInitializing", "True"), ("Running", "True")]
    assert last[1].initContainerStatuses[0].state.HasField("running")
    assert len(world.statuses) > len(last)
    last[-1].message, last[-1].podIP = "other words", "10.0.0.9"
    last[-1].containerStatuses[0].imageID = "sha256:0"
    assert outline(last[-1]) == outline(world.status)


def test_an_instance_that_took_the_place_of_another_is_no_detail() -> None:
    world = World(make_pod())
    world.run()
    before = world.status
    world.exit("a0", 1)
    world.pass_time(20)
    assert shown(world.status) == shown(before) == "Running"
    assert outline(world.status) != outline(before)


def test_conditions_name_what_is_not_initialized_and_not_ready() -> None:
    world = World(make_pod(apps=2, init=2))
    world.run()
    assert condition(world.status, "PodReadyToStartContainers")[0] == "True"
    assert condition(world.status, "Initialized") == (
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [i0 i1]",
    )
    assert condition(world.status, "Ready") == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [a0 a1]",
    )


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    world = World(make_pod())
    world.run()
    ready = world.now
    world.pass_time(100)
    times = {item.type: item.lastTransitionTime.seconds for item in world.status.conditions}
    assert times["Ready"] == int(ready)
    world.exit("a0", 1)
    found = next(item for item in world.status.conditions if item.type == "Ready")
    assert (found.status, found.lastTransitionTime.seconds) == ("False", int(world.now))


def test_a_running_pod_tells_its_addresses_start_time_and_class() -> None:
    world = World(make_pod())
    world.run()
    status = world.status
    assert (status.podIP, status.podIPs[0].ip) == ("10.1.0.2", "10.1.0.2")
    assert (status.hostIP, status.hostIPs[0].ip) == ("10.0.0.1", "10.0.0.1")
    assert status.startTime.seconds == int(world.now)
    assert status.qosClass == "BestEffort"
    assert status.containerStatuses[0].containerID == "podplane://uid-1_a0_0"


def test_a_pod_with_host_network_has_the_nodes_address() -> None:
    world = World(make_pod(hostNetwork=True))
    world.run()
    assert world.status.podIP == "10.0.0.1"


def test_a_succeeded_pod_is_not_ready_because_it_is_completed() -> None:
    world = World(make_pod(policy="Never"))
    world.run()
    world.exit("a0", 0)
    world.settle()
    assert condition(world.status, "Ready") == ("False", "PodCompleted", "")
    assert world.status.containerStatuses[0].state.terminated.reason == "Completed"


def test_one_app_that_cannot_start_keeps_the_pod_pending_and_an_ended_one_does_not() -> None:
    world = World(make_pod(apps=2))
    world.run()
    world.exit("a0", 1)
    assert world.status.phase == "Running"


def test_a_deleted_pod_whose_apps_ended_well_has_succeeded() -> None:
    world = World(make_pod())
    world.run()
    world.post(did.DeletionRequested(world.now, 30))
    world.settle()
    world.exit("a0", 0)
    world.settle()
    assert world.status.phase == "Succeeded"


def test_a_refused_pod_shows_no_containers() -> None:
    world = World(make_pod())
    world.post(did.PodRefused(world.now, "OutOfmemory", "no"))
    assert not world.status.containerStatuses


def test_the_messages_of_a_pods_containers_share_twelve_kibibytes() -> None:
    world = World(make_pod(policy="Never", apps=4))
    world.run()
    for name, message in {
        "a0": "x" * 4096,
        "a1": "\u00e9" * 2048,
        "a2": "y" * 3072,
        "a3": "-" + "\u00e9" * 2047,
    }.items():
        world.post(did.ContainerExited(world.now, name, 0, 1, False, world.now, message))
    said = [container.state.terminated.message for container in world.status.containerStatuses]
    assert said == ["x" * 3072, "\u00e9" * 1536, "y" * 3072, "-" + "\u00e9" * 1535]

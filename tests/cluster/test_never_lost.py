"""What goes wrong beside and below the agent is told truthfully, and only whom it hits suffers (ledger L4-L6, L9)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.proc import command_line, pids
from nodeagent.pods.journal import frames
from nodeagent.runtime.conmon import LOG_LIMIT
from podplane.kinds import NODE as NODE_KIND
from podplane.kinds import POD
from podplane.statuses import shown
from podplane.v1 import node_pb2, pod_pb2
from tests.support.api import Api
from tests.support.network import connects
from tests.support.objects import pod
from tests.support.programs import replaced
from tests.support.waiting import eventually

NODE = "node-2"
SERVE = "exec busybox httpd -f -p 80 -h /tmp"
Make = Callable[..., pod_pb2.Pod]


@pytest.fixture
def make(api: Api) -> Iterator[Make]:
    """Creates pods on one node, which are gone after the test."""
    names: list[str] = []

    def create(name: str, script: str, policy: str = "Always") -> pod_pb2.Pod:
        made = pod(name, "/bin/sh", "-c", script, nodeName=NODE, terminationGracePeriodSeconds=0, restartPolicy=policy)
        names.append(name)
        found: pod_pb2.Pod = api.create(made)
        return found

    yield create
    for name in names:
        if api.find(POD, name):
            api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name, seconds=60)


def main(found: pod_pb2.Pod) -> pod_pb2.ContainerStatus:
    return found.status.containerStatuses[0]


def conmon_of(uid: str, container: str = "main") -> int:
    """The process that holds a pod's container."""
    for pid in pids():
        words = command_line(pid)
        if words and words[0].endswith("conmon") and any(word.startswith(f"{uid}_{container}_") for word in words):
            return pid
    raise AssertionError(f"no conmon of {container} in pod {uid}")


def in_pod(cluster: Cluster, uid: str) -> set[int]:
    """The processes of a pod."""
    found: set[int] = set()
    for procs in Path("/sys/fs/cgroup/pids").glob(f"{cluster.cgroup(NODE)}/*/pod{uid}/*/cgroup.procs"):
        with contextlib.suppress(OSError):
            found.update(map(int, procs.read_text().split()))
    return found


@pytest.mark.parametrize(("policy", "phase"), [("Always", "Running"), ("Never", "Failed")])
def test_a_container_whose_conmon_was_killed_is_ended_and_told_as_unknown(
    cluster: Cluster, api: Api, make: Make, policy: str, phase: str
) -> None:
    uid = make("orphan", "exec sleep 600", policy).metadata.uid
    api.running("orphan")
    before = in_pod(cluster, uid)
    os.kill(conmon_of(uid), signal.SIGKILL)
    found = api.pod_when(
        "orphan", lambda found: found.status.phase == phase and (phase == "Failed" or main(found).restartCount == 1)
    )
    end = main(found).lastState.terminated if policy == "Always" else main(found).state.terminated
    assert (end.reason, end.exitCode) == ("ContainerStatusUnknown", 137)
    assert "conmon ended before the container" in end.message
    eventually(lambda: not before & in_pod(cluster, uid), what="the end of the container's processes")
    if policy == "Always":
        assert main(api.running("orphan")).restartCount == 1


HANGS = """
case "$*" in *_hangs_*create*|*create*_hangs_*) exec sleep 98765.4;; esac
exec "$REAL" "$@"
"""


@pytest.mark.timeout(180)
def test_a_runtime_that_hangs_holds_up_its_own_pod_only(cluster: Cluster, api: Api, make: Make) -> None:
    make("steady", "exec sleep 600")
    before = main(api.running("steady"))
    with replaced(cluster, NODE, "crun", HANGS, {"PODPLANE_RUNTIME_REQUEST_TIMEOUT": "6s"}):
        cluster.await_ready(3)
        stuck = pod("stuck", nodeName=NODE, terminationGracePeriodSeconds=0)
        stuck.spec.containers[0].name = "hangs"
        api.create(stuck)
        try:
            # Others come and go meanwhile.
            eventually(lambda: hanging() != [], what="the runtime that hangs")
            make("passer-by", "exec sleep 600")
            api.running("passer-by", seconds=6)
            api.delete(POD, "passer-by", grace=0)
            api.gone(POD, "passer-by", seconds=6)
            found = api.pod_when("stuck", lambda found: shown(found) == "CreateContainerError")
            assert "the runtime did not create the container within 6 s" in main(found).state.waiting.message
        finally:
            api.delete(POD, "stuck", grace=0)
            api.gone(POD, "stuck", seconds=30)
        eventually(lambda: hanging() == [], what="the end of the runtime that hung")
        assert main(api.running("steady")) == before


def hanging() -> list[int]:
    return [pid for pid in pids() if "98765.4" in command_line(pid)]


OLD = """
case "$1" in --version) echo conmon version 2.0.25; exit;; esac
exec "$REAL" "$@"
"""


@pytest.mark.timeout(120)
def test_a_node_whose_conmon_is_too_old_is_not_ready_and_says_so(cluster: Cluster, api: Api, make: Make) -> None:
    make("steady", "exec sleep 600")
    before = main(api.running("steady"))
    with replaced(cluster, NODE, "conmon", OLD):
        ready = eventually(lambda: readiness(api, "False"), what="the node's word that it is not ready")
        assert ready.reason == "ContainerRuntimeNotReady"
        assert "conmon is version 2.0, at least 2.1 is needed" in ready.message
        make("waiting", "exec sleep 600")
    eventually(lambda: readiness(api, "True"), what="a node that is ready again")
    # What ran before ran on, and what waited has its turn.
    api.running("waiting")
    assert main(api.running("steady")) == before


def readiness(api: Api, status: str) -> node_pb2.NodeCondition | None:
    """The node's condition Ready, where it is so."""
    conditions = api.get(NODE_KIND, NODE, "").status.conditions
    return next((each for each in conditions if (each.type, each.status) == ("Ready", status)), None)


@pytest.mark.parametrize("damage", ["the last record is cut", "the first bit is flipped"])
def test_a_journal_that_is_torn_loses_nothing_that_was_promised(
    cluster: Cluster, api: Api, make: Make, damage: str
) -> None:
    make("steady", "exec sleep 600")
    make("restarted", "[ -e /dev/shm/once ] || { touch /dev/shm/once; exit 3; }; exec sleep 600")
    make("over", "exit 7", "Never")
    api.pod_when("over", lambda found: found.status.phase == "Failed")
    api.pod_when("restarted", lambda found: main(found).restartCount == 1 and main(found).state.HasField("running"))
    running = {name: facts(api.running(name)) for name in ("steady", "restarted")}
    over = main(api.get(POD, "over"))
    uids = [api.get(POD, name).metadata.uid for name in running]
    processes = [in_pod(cluster, uid) for uid in uids]
    cluster.kill(NODE)
    journal = Path(f"/proc/{cluster.holder(NODE).pid}/root/run/podplane/journal/boot.log")
    data = bytearray(journal.read_bytes())
    if damage.startswith("the last"):
        *_, (end, _), _last = frames(bytes(data))
        journal.write_bytes(data[: end + 30])
    else:
        data[9] ^= 1
        journal.write_bytes(data)
    assert "is torn" in begin(cluster)
    # Where the moment of a start was lost, the bundle's file tells it to some milliseconds.
    assert {name: facts(api.running(name)) for name in running} == {
        name: (*same, pytest.approx(started, abs=0.5)) for name, (*same, started) in running.items()
    }
    assert [in_pod(cluster, uid) for uid in uids] == processes
    assert main(api.get(POD, "over")) == over
    # And it goes on from there: nothing is known twice, and all of it can be taken away.
    for name in ("steady", "restarted", "over"):
        api.delete(POD, name, grace=0)
        api.gone(POD, name)
    eventually(lambda: not any(in_pod(cluster, uid) for uid in uids), what="the end of their processes")


def facts(found: pod_pb2.Pod) -> tuple[str, str, int, float]:
    """What the next agent tells of a container that runs on."""
    status = main(found)
    started = status.state.running.startedAt
    return status.containerID, status.imageID, status.restartCount, started.seconds + started.nanos / 1e9


def begin(cluster: Cluster, **environment: str) -> str:
    """Start the node's agent anew; what it has said until it is connected."""
    cluster.kill(NODE)
    known = len(cluster.log(NODE).read_text())
    cluster.start_node(NODE, environment)
    return eventually(lambda: said if "session open" in (said := cluster.log(NODE).read_text()[known:]) else "")


BOMB = """exec /usr/bin/python3 -S -c 'import os
while True:
    try: os.fork()
    except OSError: pass'"""


@pytest.mark.timeout(120)
def test_a_fork_bomb_hurts_nobody_else(cluster: Cluster, api: Api, make: Make) -> None:
    begin(cluster, PODPLANE_POD_PIDS_LIMIT="100")
    try:
        make("neighbour", SERVE)
        neighbour = api.running("neighbour")
        eventually(lambda: connects(cluster, NODE, neighbour.status.podIP, 80), 10)
        agent = cluster.process(NODE)
        uid = make("bomb", BOMB).metadata.uid
        eventually(lambda: len(in_pod(cluster, uid)) > 80, what="the bomb's explosion")
        for _ in range(5):
            assert connects(cluster, NODE, neighbour.status.podIP, 80)
            assert len(in_pod(cluster, uid)) <= 100
        make("newcomer", "exec sleep 600")
        api.running("newcomer")
        api.delete(POD, "bomb", grace=0)
        api.gone(POD, "bomb", seconds=20)
        eventually(lambda: in_pod(cluster, uid) == set(), 20, "the end of every one of its processes")
        assert main(api.running("neighbour")) == main(neighbour)
        assert cluster.process(NODE) == agent
    finally:
        begin(cluster)


@pytest.mark.timeout(120)
def test_a_log_flood_is_bounded_and_hurts_nobody_else(cluster: Cluster, api: Api, make: Make) -> None:
    make("neighbour", SERVE)
    neighbour = api.running("neighbour")
    eventually(lambda: connects(cluster, NODE, neighbour.status.podIP, 80), 10)
    flood = make("flood", f"yes | head -c {LOG_LIMIT // 4}; echo; echo over; exec sleep 600")
    api.running("flood")
    logs = cluster.root / NODE / "logs" / f"default_flood_{flood.metadata.uid}" / "main"
    largest = 0

    def over() -> bool:
        nonlocal largest
        with contextlib.suppress(FileNotFoundError):  # it is being rotated
            largest = max(largest, sum(path.stat().st_size for path in logs.iterdir()))
        return api.logs("flood", tailLines=1) == b"over\n"

    eventually(over, 90, "the end of the flood")
    # An entry has the time beside its text: a flood of that size is several times as large, and was not kept whole.
    assert 0 < largest <= 5 * (LOG_LIMIT + (1 << 20))
    assert len(list(logs.iterdir())) <= 5
    assert connects(cluster, NODE, neighbour.status.podIP, 80)
    assert main(api.running("neighbour")) == main(neighbour)


def test_an_init_container_that_runs_out_of_memory_is_told(api: Api, make: Make) -> None:
    wanted = pod("greedy", restartPolicy="Never", nodeName=NODE)
    eat = "data = bytearray(300 << 20)"
    init = wanted.spec.initContainers.add(name="eater", image="host", command=["/usr/bin/python3", "-S", "-c", eat])
    init.resources.limits["memory"] = "40Mi"
    api.create(wanted)
    try:
        found = api.pod_when("greedy", lambda found: found.status.phase == "Failed")
        end = found.status.initContainerStatuses[0].state.terminated
        assert (end.reason, end.exitCode) == ("OOMKilled", 137)
        assert "memory limit 40Mi" in end.message
        assert shown(found) == "Init:OOMKilled"
        assert not main(found).state.HasField("running")
    finally:
        api.delete(POD, "greedy", grace=0)
        api.gone(POD, "greedy")

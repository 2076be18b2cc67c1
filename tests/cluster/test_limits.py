"""What a pod may have, what becomes of one that wants more, and that it hurts nobody else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from nodeagent.runtime.conmon import LOG_LIMIT
from podplane.kinds import POD
from podplane.statuses import shown
from tests.cluster.conftest import NODE, Make, begin, in_pod, main
from tests.support.api import Api
from tests.support.network import connects
from tests.support.objects import pod
from tests.support.waiting import eventually

SERVE = "exec busybox httpd -f -p 80 -h /tmp"
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


ASKED: dict[str, dict[str, dict[str, str]]] = {
    "Guaranteed": {"limits": {"cpu": "50m", "memory": "64Mi"}},
    "Burstable": {"requests": {"memory": "64Mi"}},
    "BestEffort": {},
}


def test_each_qos_class_has_its_cgroup_and_its_place_in_the_kernels_choice(
    cluster: Cluster, api: Api, make: Make
) -> None:
    place = {"Guaranteed": "", "Burstable": "burstable/", "BestEffort": "besteffort/"}
    uids = {qos: make(qos.lower(), "exec sleep 600", resources=ASKED[qos]).metadata.uid for qos in place}
    agent = cluster.process(NODE)
    assert agent is not None
    own = int(Path(f"/proc/{agent.pid}/oom_score_adj").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Without CAP_SYS_RESOURCE nobody may go below what it has itself.
    wanted = {"Guaranteed": {-997, max(-997, own)}, "BestEffort": {1000}}
    wanted["Burstable"] = {max(3, min(999, 1000 - 1000 * (64 << 20) // memory))}
    for qos, uid in uids.items():
        assert api.running(qos.lower()).status.qosClass == qos
        (pid, *_) = in_pod(cluster, uid)
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        (group,) = {line.rpartition(":")[2] for line in groups if ":memory:" in line or ":pids:" in line}
        assert group == f"/{cluster.cgroup(NODE)}/{place[qos]}pod{uid}/main_0"
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) in wanted[qos], qos

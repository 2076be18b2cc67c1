"""What goes wrong beside and below the agent is told truthfully, and only whom it hits suffers (ledger L4-L6, L9)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.proc import command_line, pids
from nodeagent.pods.journal import frames
from podplane.kinds import EVENT, POD
from podplane.kinds import NODE as NODE_KIND
from podplane.statuses import shown
from podplane.v1 import node_pb2, pod_pb2
from tests.cluster.conftest import NODE, Make, begin, in_pod, main
from tests.support.api import Api, is_ready
from tests.support.objects import pod
from tests.support.programs import replaced
from tests.support.waiting import eventually


def conmon_of(uid: str, container: str = "main") -> int:
    """The process that holds a pod's container."""
    for pid in pids():
        words = command_line(pid)
        if words and words[0].endswith("conmon") and any(word.startswith(f"{uid}_{container}_") for word in words):
            return pid
    raise AssertionError(f"no conmon of {container} in pod {uid}")


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
for id; do :; done  # the last argument
case "$*" in
  *" create "*_at-create_*) exec sleep 98765.4;;
  *" create "*_at-start_*) "$REAL" "$@" || exit; exec rm /run/podplane/oci/$id/exec.fifo;;
  *" create "*_at-delete_*) "$REAL" "$@"; exec sleep 98765.4;;
  *" start "*_at-start_*|*" delete "*_at-delete_*|*" exec "*_at-exec_*) exec sleep 98765.4;;
esac
exec "$REAL" "$@"
"""
"""By the container's name. Without its fifo crun is asked to start what the agent starts by itself otherwise; and to
delete what it has created without coming back."""


def hung(step: str) -> pod_pb2.Pod:
    """A pod whose container meets a runtime that hangs at a step."""
    made = pod(f"stuck-{step}", nodeName=NODE, terminationGracePeriodSeconds=0)
    container = made.spec.containers[0]
    container.name = f"at-{step}"
    if step == "exec":
        container.readinessProbe.exec.command.append("/bin/true")
        container.readinessProbe.periodSeconds = 1
    return made


@pytest.mark.timeout(180)
def test_a_runtime_that_hangs_holds_up_its_own_pod_only(cluster: Cluster, api: Api, make: Make) -> None:
    make("steady", "exec sleep 600")
    before = main(api.running("steady"))
    stuck = [hung(step) for step in ("create", "start", "delete", "exec")]
    with replaced(cluster, NODE, "crun", HANGS, {"PODPLANE_RUNTIME_REQUEST_TIMEOUT": "6s"}):
        cluster.await_ready(3)
        agent, known = cluster.process(NODE), len(cluster.log(NODE).read_text())
        watch = api.watch(POD, "default")
        for made in stuck:
            api.create(made)
        try:
            # Others come and go meanwhile.
            eventually(lambda: len(hanging()) >= len(stuck), what="the runtimes that hang")
            make("passer-by", "exec sleep 600")
            api.running("passer-by", seconds=6)
            api.delete(POD, "passer-by", grace=0)
            api.gone(POD, "passer-by", seconds=6)
            argv = [str(cluster.podctl), "exec", "stuck-exec", "--", "/bin/true"]
            tried = subprocess.run(
                argv, env=cluster.environment, capture_output=True, text=True, timeout=30, check=False
            )
            assert tried.returncode == 126
            assert "the runtime did not start the command within 3 s" in tried.stderr
            for name, status, words in (
                ("stuck-create", "CreateContainerError", "the runtime did not create the container within 6 s"),
                ("stuck-delete", "CreateContainerError", "the runtime did not create the container within 6 s"),
                ("stuck-start", "RunContainerError", "cannot start container: crun did not end within 3 s"),
            ):
                found = watch.wait(lambda event, who=(name, status): seen(event.object) == who)  # type: ignore[misc]
                assert words in main(found.object).state.waiting.message
            eventually(lambda: "crun did not end within 3 s" in cluster.log(NODE).read_text()[known:], what="a delete")
            unhealthy = eventually(lambda: told(api, "stuck-exec", "Unhealthy"), what="the probe's failure")
            assert unhealthy[0].startswith("Readiness probe failed: command timed out")
            assert not is_ready(api.get(POD, "stuck-exec"))
            assert cluster.process(NODE) == agent
        finally:
            watch.close()
            for made in stuck:
                api.delete(POD, made.metadata.name, grace=0)
    for made in stuck:  # with a runtime that answers
        api.gone(POD, made.metadata.name, seconds=30)
    eventually(lambda: hanging() == [], what="the end of the runtimes that hung")
    assert main(api.running("steady")) == before


def seen(found: pod_pb2.Pod) -> tuple[str, str]:
    """A pod's name, and its status as people see it."""
    return found.metadata.name, shown(found)


def told(api: Api, name: str, reason: str) -> list[str]:
    """The messages of the events with that reason about a pod."""
    events = [event for event in api.list(EVENT, "default") if event.involvedObject.name == name]
    return [event.message for event in events if event.reason == reason]


def hanging() -> list[int]:
    return [pid for pid in pids() if "98765.4" in command_line(pid)]


BAD = """#!/bin/sh
case "$1" in --version) echo conmon version VERSION; exit;; esac
echo no such luck >&2; exit 1
"""


@pytest.mark.timeout(120)
def test_a_node_whose_conmon_is_too_old_broken_or_missing_is_not_ready_and_says_so(
    cluster: Cluster, api: Api, make: Make
) -> None:
    stays = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]  # however long that takes
    make("steady", "exec sleep 600", tolerations=stays)
    before = main(api.running("steady"))
    with replaced(cluster, NODE, "conmon", BAD.replace("VERSION", "2.0.25")) as wrapper:
        not_ready(api, "conmon is version 2.0, at least 2.1 is needed")
        make("waiting", "exec sleep 600", tolerations=stays)
        wrapper.write_text(BAD.replace("VERSION", "2.1.6"))
        again(cluster)
        not_ready(api, "the test container failed: conmon failed: no such luck")
        wrapper.chmod(0o644)
        again(cluster)
        not_ready(api, "conmon is not installed: install the package conmon")
    eventually(lambda: readiness(api, "True"), what="a node that is ready again")
    # What ran before ran on, and what waited has its turn.
    api.running("waiting")
    assert main(api.running("steady")) == before


def again(cluster: Cluster) -> None:
    """The next agent."""
    cluster.kill(NODE)
    cluster.start_node(NODE)


def not_ready(api: Api, words: str) -> None:
    """Return once the node says that it is not ready because of its runtime, in these words."""

    def probe() -> bool:
        found = readiness(api, "False")
        return found is not None and found.reason == "ContainerRuntimeNotReady" and words in found.message

    eventually(probe, what=f"the node's word: {words}")


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


def test_a_pods_start_is_told_step_by_step_and_why_its_sandbox_cannot_be_made(api: Api, make: Make) -> None:
    tuned = pod("untunable", nodeName=NODE, terminationGracePeriodSeconds=0)
    tuned.spec.securityContext.sysctls.add(name="net.ipv4.ip_local_port_range", value="none")
    api.create(tuned)
    try:
        make("steps", "exec sleep 600")
        api.running("steps")
        steps = ("Pulled", "Created", "Started")
        eventually(lambda: all(told(api, "steps", reason) for reason in steps), what="the steps")
        said = {reason: told(api, "steps", reason) for reason in steps}
        assert said == {
            "Pulled": ['Container image "host" already present on machine'],
            "Created": ["Created container main"],
            "Started": ["Started container main"],
        }
        (words, *_) = eventually(lambda: told(api, "untunable", "FailedCreatePodSandBox"), what="why it has none")
        assert words.startswith("Failed to create pod sandbox: ")
        assert "net.ipv4.ip_local_port_range" in words
        assert shown(api.get(POD, "untunable")) == "ContainerCreating"
    finally:
        api.delete(POD, "untunable", grace=0)
        api.gone(POD, "untunable")

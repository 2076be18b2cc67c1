"""postStart and preStop on a real cluster: what waits for them, what their failure does, and that an agent may die."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from devcluster.cluster import Cluster
from podplane.kinds import EVENT, POD
from podplane.statuses import shown
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

Make = Callable[[pod_pb2.Pod], pod_pb2.Pod]
# PID 1 of a namespace ignores SIGTERM until its trap is set: /v/heeding and the log say so.
SERVER = "trap 'exit 7' TERM; touch /v/heeding; echo heeding; while :; do sleep 0.05; done"


@pytest.fixture
def make(api: Api) -> Iterator[Make]:
    """Creates pods that are gone after the test."""
    names: list[str] = []

    def create(wanted: pod_pb2.Pod) -> pod_pb2.Pod:
        created: pod_pb2.Pod = api.create(wanted)
        names.append(created.metadata.name)
        return created

    yield create
    for name in names:
        if api.find(POD, name):
            api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name)


def shared(name: str, command: str, **spec: Any) -> pod_pb2.Pod:
    """A pod whose container has a volume at /v that a hook can leave something in."""
    made = pod(name, "/bin/sh", "-c", command, **spec)
    made.spec.volumes.add(name="v").emptyDir.SetInParent()
    made.spec.containers[0].volumeMounts.add(name="v", mountPath="/v")
    return made


def _messages(api: Api, name: str, reason: str) -> list[str]:
    found = [event for event in api.list(EVENT, "default") if event.involvedObject.name == name]
    return [event.message for event in found if event.reason == reason]


def _seconds(stamp: Any) -> float:
    return float(stamp.ToNanoseconds()) / 1e9


def test_the_second_container_starts_only_after_the_first_ones_post_start(api: Api, make: Make) -> None:
    made = shared("hooked", "sleep 1; touch /v/go; exec sleep infinity")
    second = made.spec.containers.add(name="second", image="host", command=["/bin/sh", "-c"])
    second.args.append("cat /v/ready && exec sleep infinity")
    second.volumeMounts.add(name="v", mountPath="/v")
    hook = "while [ ! -e /v/go ]; do sleep 0.05; done; echo ready > /v/ready"
    made.spec.containers[0].lifecycle.postStart.exec.command.extend(["/bin/sh", "-c", hook])
    watch = api.watch(POD, "default")
    try:
        make(made)
        found = api.running("hooked")
        first, other = found.status.containerStatuses
        assert _seconds(other.state.running.startedAt) - _seconds(first.state.running.startedAt) >= 1
        eventually(lambda: api.logs("hooked", container="second") == b"ready\n", what="what the hook has left")
        seen = [event.object.status for event in watch.up_to(found)]
        before = [
            one for one in seen if one.containerStatuses and not one.containerStatuses[0].state.HasField("running")
        ]
        assert {one.containerStatuses[0].state.waiting.reason for one in before} == {"ContainerCreating"}
        assert {one.phase for one in before} == {"Pending"}
    finally:
        watch.close()


def test_a_failing_post_start_is_told_and_the_container_tried_again(api: Api, make: Make) -> None:
    made = shared("unhooked", SERVER, terminationGracePeriodSeconds=1)
    command = ["/bin/sh", "-c", "until [ -e /v/heeding ]; do sleep 0.05; done; echo it will not do; exit 3"]
    made.spec.containers[0].lifecycle.postStart.exec.command.extend(command)
    watch = api.watch(POD, "default")
    try:
        make(made)
        seen = watch.wait(lambda event: shown(event.object) == "PostStartHookError").object.status.containerStatuses[0]
        assert seen.state.waiting.message.startswith(f"Exec lifecycle hook ([{' '.join(command)}])")
        assert "it will not do" in seen.state.waiting.message
        found = api.pod_when("unhooked", lambda found: shown(found) == "CrashLoopBackOff")
        assert found.status.containerStatuses[0].lastState.terminated.exitCode == 7
        words = "PostStartHook failed: command exited with 3"
        eventually(lambda: words in _messages(api, "unhooked", "FailedPostStartHook"), what="the event")
    finally:
        watch.close()


def last_words(api: Api, name: str) -> pod_pb2.ContainerStateTerminated:
    """Delete a pod; how its container ended."""
    watch = api.watch(POD, "default")
    try:
        api.delete(POD, name)
        last = watch.wait(lambda event: event.type == "DELETED" and event.object.metadata.name == name).object
        end: pod_pb2.ContainerStateTerminated = last.status.containerStatuses[0].state.terminated
        return end
    finally:
        watch.close()


SAYS_AT_TERM = "trap 'echo term >> /v/said; cat /v/said > /dev/termination-log; exit 7' TERM; "


def test_pre_stop_runs_to_its_end_before_sigterm(api: Api, make: Make) -> None:
    made = shared("stopped", SAYS_AT_TERM + "echo up; while :; do sleep 0.05; done")
    command = ["/bin/sh", "-c", "echo begins >> /v/said; sleep 1; echo ends >> /v/said"]
    made.spec.containers[0].lifecycle.preStop.exec.command.extend(command)
    make(made)
    eventually(lambda: _said(api, "stopped") == b"up\n", what="the container")
    before = datetime.now(UTC).timestamp()
    end = last_words(api, "stopped")
    assert (end.exitCode, end.message) == (7, "begins\nends\nterm\n")
    assert _seconds(end.finishedAt) - before >= 1


def test_a_pre_stop_that_fails_or_takes_too_long_is_told_and_the_pod_ends(api: Api, make: Make) -> None:
    failing, late = shared("failing", SERVER), shared("late", SERVER, terminationGracePeriodSeconds=1)
    failing.spec.containers[0].lifecycle.preStop.httpGet.port.number_value = 9
    late.spec.containers[0].lifecycle.preStop.exec.command.extend(["/bin/sleep", "47"])
    for made in (failing, late):
        make(made)
    for name in ("failing", "late"):
        api.running(name)
        eventually(lambda name=name: b"heeding" in api.logs(name), what=name)  # type: ignore[misc]
        api.delete(POD, name)
    told = eventually(lambda: _messages(api, "failing", "FailedPreStopHook"), what="the event")
    assert "connection refused" in told[0].lower()
    wanted = "PreStopHook failed: it was not over when the grace period was"
    eventually(lambda: wanted in _messages(api, "late", "FailedPreStopHook"), what="the event")
    for name in ("failing", "late"):
        api.gone(POD, name, seconds=10)


def test_hooks_by_http_and_by_sleep(api: Api, make: Make) -> None:
    """Each kind before the start and before the end; the one that listens is asked by the other's postStart too."""
    server = (
        "mkdir /tmp/w; cd /tmp/w; touch hook started; busybox httpd -f -vv -p 8080 -h /tmp/w 2> /v/said & echo up; wait"
    )
    made = shared("asked", SAYS_AT_TERM + server)
    container = made.spec.containers[0]
    container.ports.add(name="web", containerPort=8080)
    container.lifecycle.postStart.sleep.seconds = 1
    container.lifecycle.preStop.httpGet.port.string_value = "web"
    container.lifecycle.preStop.httpGet.path = "/hook"
    make(made)
    found = api.running("asked")
    ready = next(item for item in found.status.conditions if item.type == "Ready")
    started = found.status.containerStatuses[0].state.running.startedAt
    assert _seconds(ready.lastTransitionTime) - _seconds(started) >= 0.9
    mirrored = shared("asking", SERVER)
    lifecycle = mirrored.spec.containers[0].lifecycle
    lifecycle.postStart.httpGet.host = found.status.podIP
    lifecycle.postStart.httpGet.port.number_value = 8080
    lifecycle.postStart.httpGet.path = "/started"
    lifecycle.preStop.sleep.seconds = 1
    make(mirrored)
    api.running("asking")
    eventually(lambda: b"heeding" in _said(api, "asking"), what="its trap")
    before = datetime.now(UTC).timestamp()
    slept = last_words(api, "asking")
    assert slept.exitCode == 7
    assert 1 <= _seconds(slept.finishedAt) - before < 10
    end = last_words(api, "asked")
    assert end.exitCode == 7
    assert "url:/started" in end.message
    assert "url:/hook" in end.message
    for name in ("asked", "asking"):
        assert _messages(api, name, "FailedPostStartHook") == _messages(api, name, "FailedPreStopHook") == []


AGAIN = "echo begins >> /v/hook; while [ ! -e /v/go ]; do sleep 0.05; done"
UNTIL_TWICE = """trap 'exit 7' TERM
while :; do
  [ -e /v/hook ] && echo "$(wc -l < /v/hook)" && [ "$(wc -l < /v/hook)" = 2 ] && touch /v/go
  sleep 0.05
done"""


@pytest.mark.parametrize("hook", ["postStart", "preStop"])
def test_a_hook_under_way_is_run_again_by_the_next_agent(api: Api, make: Make, cluster: Cluster, hook: str) -> None:
    made = shared("held", UNTIL_TWICE)
    getattr(made.spec.containers[0].lifecycle, hook).exec.command.extend(["/bin/sh", "-c", AGAIN])
    make(made)
    node = api.pod_when("held", lambda found: found.spec.nodeName).spec.nodeName
    if hook == "preStop":
        api.running("held")
        api.delete(POD, "held")
    eventually(lambda: b"1" in _said(api, "held"), what="the hook")
    cluster.kill(node)
    cluster.start_node(node)
    if hook == "postStart":
        assert api.running("held").status.containerStatuses[0].restartCount == 0
    else:
        api.gone(POD, "held", seconds=20)  # of a grace of 30: it did not need to be killed


def _said(api: Api, name: str) -> bytes:
    with contextlib.suppress(grpc.RpcError):  # it waits to start
        return api.logs(name)
    return b""

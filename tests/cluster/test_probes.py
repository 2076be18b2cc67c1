"""Probes on a real cluster: who is served, who is restarted, and who is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from podplane.kinds import ENDPOINT_SLICE, EVENT, POD, SERVICE
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import manifest, pod
from tests.support.waiting import eventually

SERVICE_OF = """
apiVersion: v1
kind: Service
metadata: {name: probed, namespace: default}
spec: {selector: {app: probed}, ports: [{port: 80}]}
"""


@pytest.fixture
def names(api: Api) -> Iterator[list[str]]:
    """Pods to be removed at the end."""
    made: list[str] = []
    yield made
    for name in made:
        api.delete(POD, name, grace=0)
    for name in made:
        api.gone(POD, name)


def _messages(api: Api, name: str, reason: str) -> list[str]:
    found = [event for event in api.list(EVENT, "default") if event.involvedObject.name == name]
    return [event.message for event in found if event.reason == reason]


def _ready_addresses(api: Api) -> list[str]:
    slices = [item for item in api.list(ENDPOINT_SLICE, "default") if item.metadata.name.startswith("probed")]
    endpoints: list[Any] = [endpoint for item in slices for endpoint in item.endpoints]
    return [address for endpoint in endpoints if endpoint.conditions.ready for address in endpoint.addresses]


def _ready_containers(found: pod_pb2.Pod) -> list[str]:
    return [status.name for status in found.status.containerStatuses if status.ready]


def _restarts(found: pod_pb2.Pod) -> int:
    return sum(status.restartCount for status in found.status.containerStatuses)


def test_http_readiness_holds_a_pod_out_of_the_endpoints_and_lets_it_in_and_out(api: Api, names: list[str]) -> None:
    made = pod(
        "probed",
        "/bin/sh",
        "-c",
        "mkdir /tmp/www; cd /tmp/www; busybox httpd -f -p 80 -h /tmp/www & "
        "echo > ok; while [ -e ok ]; do sleep 0.1; done; wait",
    )
    probe = made.spec.containers[0].readinessProbe
    probe.httpGet.path, probe.httpGet.port.number_value = "/ok", 80
    probe.periodSeconds, probe.failureThreshold, probe.initialDelaySeconds = 1, 1, 2
    remover = made.spec.containers[0].livenessProbe  # passes, and takes the page away after a while
    remover.exec.command.extend(["/bin/sh", "-c", "rm -f /tmp/www/ok"])
    remover.initialDelaySeconds, remover.timeoutSeconds = 6, 5
    (service,) = manifest(SERVICE_OF)
    api.create(service)
    try:
        api.create(made)
        names.append("probed")
        api.pod_when("probed", lambda found: found.status.phase == "Running")
        assert _ready_addresses(api) == []
        up = api.running("probed")
        eventually(lambda: _ready_addresses(api) == [up.status.podIP], what="the endpoint")
        down = api.pod_when("probed", lambda found: not found.status.containerStatuses[0].ready)
        eventually(lambda: _ready_addresses(api) == [], what="no endpoint")
        assert _restarts(down) == 0
        wanted = "Readiness probe failed: HTTP probe failed with statuscode: 404"
        eventually(lambda: wanted in _messages(api, "probed", "Unhealthy"), what="Unhealthy")
    finally:
        api.delete(SERVICE, "probed")
        api.gone(SERVICE, "probed")


def test_a_failing_liveness_restarts_after_it_was_held_back_by_startup(api: Api, names: list[str]) -> None:
    made = pod("restless", "/bin/sh", "-c", "sleep 3; busybox nc -l -p 9 </dev/null; exec sleep infinity")
    made.spec.terminationGracePeriodSeconds = 1
    container = made.spec.containers[0]
    container.startupProbe.tcpSocket.port.number_value = 9
    container.startupProbe.periodSeconds, container.startupProbe.failureThreshold = 1, 60
    container.livenessProbe.exec.command.extend(["/bin/sh", "-c", "echo it is ill; exit 3"])
    container.livenessProbe.periodSeconds = container.livenessProbe.failureThreshold = 1
    container.livenessProbe.timeoutSeconds = 5
    api.create(made)
    names.append("restless")
    waiting = api.pod_when("restless", lambda found: "Startup" in " ".join(_messages(api, "restless", "Unhealthy")))
    assert not waiting.status.containerStatuses[0].started
    assert not waiting.status.containerStatuses[0].ready
    assert _restarts(waiting) == 0
    assert not [words for words in _messages(api, "restless", "Unhealthy") if words.startswith("Liveness")]
    api.pod_when("restless", lambda found: _restarts(found) == 1)
    assert any("Liveness probe failed: it is ill" in words for words in _messages(api, "restless", "Unhealthy"))
    killing = "Container main failed liveness probe, will be restarted"
    eventually(lambda: killing in _messages(api, "restless", "Killing"), what="Killing")


def test_a_command_that_exceeds_its_timeout_has_failed_and_is_ended(api: Api, names: list[str]) -> None:
    made = pod("late", "/bin/sleep", "infinity")
    probe = made.spec.containers[0].readinessProbe
    probe.exec.command.extend(["/bin/sleep", "47"])
    probe.periodSeconds = probe.timeoutSeconds = 1
    api.create(made)
    names.append("late")
    wanted = 'Readiness probe failed: command timed out: "/bin/sleep 47" timed out after 1s'
    eventually(lambda: wanted in _messages(api, "late", "Unhealthy"), what="Unhealthy")
    assert not api.get(POD, "late").status.containerStatuses[0].ready


# Says in the log, which has times, how often it was asked.
COUNTED = "echo >>/tmp/asked; echo asked $(wc -l </tmp/asked) >/proc/1/fd/1"


def test_startup_kills_by_its_own_grace_and_readiness_waits_for_enough_in_a_row(api: Api, names: list[str]) -> None:
    made = pod("held", "/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    made.spec.terminationGracePeriodSeconds = 300
    startup = made.spec.containers[0].startupProbe
    startup.exec.command.append("/bin/false")
    startup.periodSeconds = startup.failureThreshold = startup.terminationGracePeriodSeconds = 1
    startup.timeoutSeconds = 5
    counted = made.spec.containers.add(name="counted", image="host", command=["/bin/sleep", "infinity"])
    counted.readinessProbe.exec.command.extend(["/bin/sh", "-c", COUNTED])
    counted.readinessProbe.periodSeconds, counted.readinessProbe.successThreshold = 1, 3
    counted.readinessProbe.timeoutSeconds = 5
    watch = api.watch(POD, "default")
    try:
        api.create(made)
        names.append("held")
        watch.wait(lambda event: event.object.metadata.name == "held" and "counted" in _ready_containers(event.object))
        # A second is a period: who were ready after the first would have been asked twice by then.
        eventually(lambda: b"asked 3\n" in api.logs("held", container="counted"), 1, "the third question")
    finally:
        watch.close()
    first = api.pod_when("held", lambda found: _restarts(found) >= 1).status.containerStatuses[0]
    assert first.lastState.terminated.exitCode == 137
    killing = "Container main failed startup probe, will be restarted"
    eventually(lambda: killing in _messages(api, "held", "Killing"), what="Killing")

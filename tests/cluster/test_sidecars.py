"""Sidecars on a real cluster: started in order, beside the apps, restarted, and ended last."""

from __future__ import annotations

from podplane.kinds import POD
from podplane.statuses import ready, shown
from podplane.v1 import container_pb2, pod_pb2
from tests.support.api import Api
from tests.support.objects import pod

SERVE = "trap 'exit 7' TERM; {}; while :; do sleep 0.05; done"


def sidecar(made: pod_pb2.Pod, name: str, command: str) -> container_pb2.Container:
    found = made.spec.initContainers.add(name=name, image="host", restartPolicy="Always")
    found.command.extend(["/bin/sh", "-c", SERVE.format(command)])
    found.volumeMounts.add(name="v", mountPath="/v")
    return found


def with_volume(made: pod_pb2.Pod) -> pod_pb2.Pod:
    made.spec.volumes.add(name="v").emptyDir.SetInParent()
    made.spec.containers[0].volumeMounts.add(name="v", mountPath="/v")
    return made


def test_a_job_runs_beside_its_sidecar_and_completes(api: Api) -> None:
    made = with_volume(pod("job", "/bin/sh", "-c", "test -e /v/init", restartPolicy="Never"))
    sidecar(made, "serves", "sleep 1; touch /v/up").startupProbe.exec.command.extend(["/bin/test", "-e", "/v/up"])
    made.spec.initContainers[0].startupProbe.periodSeconds = 1
    made.spec.initContainers[0].startupProbe.failureThreshold = 60
    uses = made.spec.initContainers.add(name="uses", image="host", command=["/bin/sh", "-c"])
    uses.args.append("test -e /v/up && touch /v/init")
    uses.volumeMounts.add(name="v", mountPath="/v")
    watch = api.watch(POD, "default")
    try:
        api.create(made)
        found = api.pod_when("job", lambda found: found.status.phase in ("Succeeded", "Failed"))
        assert (found.status.phase, shown(found)) == ("Succeeded", "Completed")
        served, used = found.status.initContainerStatuses
        assert (served.state.terminated.exitCode, used.state.terminated.exitCode) == (7, 0)
        assert served.restartCount == used.restartCount == 0
        seen = [shown(event.object) for event in watch.up_to(found)]
        assert seen.index("Init:0/2") < seen.index("Init:1/2") < seen.index("Completed")
    finally:
        watch.close()
        api.delete(POD, "job", grace=0)
        api.gone(POD, "job")


def test_sidecars_are_counted_restarted_and_ended_last_in_reverse(api: Api) -> None:
    made = with_volume(pod("beside", "/bin/sh", "-c", SERVE.format("echo up")))
    sidecar(made, "first", "[ -e /v/twice ] || { touch /v/twice; sleep 1; exit 0; }")
    sidecar(made, "second", ":")
    api.create(made)
    found = api.pod_when("beside", lambda found: _restarts(found) == 1 and shown(found) == "Running")
    found = api.running("beside")
    assert str(ready(found)) == "3/3"
    assert found.status.containerStatuses[0].restartCount == 0
    watch = api.watch(POD, "default")
    try:
        api.delete(POD, "beside")
        last = watch.wait(lambda event: event.type == "DELETED" and event.object.metadata.name == "beside").object
        ends = [status.state.terminated for status in (*last.status.containerStatuses, *_reversed(last))]
        assert [end.exitCode for end in ends] == [7, 7, 7]
        times = [end.finishedAt.ToNanoseconds() for end in ends]
        assert times == sorted(times)
    finally:
        watch.close()
        api.gone(POD, "beside")


def _restarts(found: pod_pb2.Pod) -> int:
    return sum(status.restartCount for status in found.status.initContainerStatuses)


def _reversed(found: pod_pb2.Pod) -> list[pod_pb2.ContainerStatus]:
    return list(reversed(found.status.initContainerStatuses))

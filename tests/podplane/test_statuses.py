"""READY, STATUS and RESTARTS, as kubectl prints them."""

from __future__ import annotations

from typing import Any

import pytest

from podplane import statuses
from podplane.errors import NotFound
from podplane.explain import EXPLANATIONS, OLDER_NAMES, explain
from podplane.manifest.reading import from_tree
from podplane.v1 import pod_pb2

Tree = dict[str, Any]
RUNNING: Tree = {"running": {}}
DONE: Tree = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def waiting(reason: str) -> Tree:
    return {"waiting": {"reason": reason}}


def ended(code: int, reason: str = "", signal: int = 0) -> Tree:
    return {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}


def pod(
    phase: str,
    app: list[Tree] | None = None,
    init: list[Tree] | None = None,
    *,
    conditions: dict[str, str] | None = None,
    deleted: bool = False,
    sidecars: tuple[int, ...] = (),
    **status: Any,
) -> pod_pb2.Pod:
    """States of app containers, which are ready while they run, and of init containers."""

    def of(states: list[Tree], prefix: str) -> list[Tree]:
        return [
            {"name": f"{prefix}{i}", "state": state, "ready": "running" in state, "started": "running" in state}
            for i, state in enumerate(states)
        ]

    app, init = app if app is not None else [], init or []
    return from_tree(
        {
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {},
            "spec": {
                "containers": [{"name": f"c{i}"} for i in range(max(len(app), 1))],
                "initContainers": [
                    {"name": f"i{i}", **({"restartPolicy": "Always"} if i in sidecars else {})}
                    for i in range(len(init))
                ],
            },
            "status": {
                "phase": phase,
                "containerStatuses": of(app, "c"),
                "initContainerStatuses": of(init, "i"),
                "conditions": [{"type": key, "status": value} for key, value in (conditions or {}).items()],
                **status,
            },
        },
        pod_pb2.Pod,
    )


@pytest.mark.parametrize(
    ("given", "shown", "ready"),
    [
        (pod("Pending"), "Pending", "0/1"),
        (pod("Pending", [waiting("ContainerCreating")]), "ContainerCreating", "0/1"),
        (pod("Running", [RUNNING, RUNNING]), "Running", "2/2"),
        (pod("Running", [RUNNING, waiting("CrashLoopBackOff")]), "CrashLoopBackOff", "1/2"),
        (pod("Running", [waiting("ErrImagePull"), waiting("CrashLoopBackOff")]), "ErrImagePull", "0/2"),
        (pod("Failed", [ended(1, "Error")]), "Error", "0/1"),
        (pod("Failed", [ended(1)]), "ExitCode:1", "0/1"),
        (pod("Failed", [ended(137, signal=9)]), "Signal:9", "0/1"),
        (pod("Failed", [ended(137, "OOMKilled")]), "OOMKilled", "0/1"),
        (pod("Succeeded", [DONE]), "Completed", "0/1"),
        (pod("Running", [DONE, RUNNING], conditions={"Ready": "True"}), "Running", "1/2"),
        (pod("Running", [DONE, RUNNING], conditions={"Ready": "False"}), "NotReady", "1/2"),
        (pod("Pending", [waiting("PodInitializing")], [RUNNING, waiting("PodInitializing")]), "Init:0/2", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [DONE, waiting("PodInitializing")]), "Init:1/2", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [waiting("ImagePullBackOff")]), "Init:ImagePullBackOff", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [ended(1, "Error")]), "Init:Error", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [ended(3)]), "Init:ExitCode:3", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [ended(137, signal=9)]), "Init:Signal:9", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [waiting("CrashLoopBackOff")]), "Init:CrashLoopBackOff", "0/1"),
        (pod("Pending", [waiting("PodInitializing")], [DONE, DONE]), "PodInitializing", "0/1"),
        (pod("Running", [RUNNING], [DONE]), "Running", "1/1"),
        (pod("Running", [RUNNING], [RUNNING], sidecars=(0,)), "Running", "2/2"),
        (
            pod("Running", [RUNNING], [ended(1, "Error")], sidecars=(0,), conditions={"Initialized": "True"}),
            "Init:Error",
            "1/2",
        ),
        (pod("Running", [RUNNING], deleted=True), "Terminating", "1/1"),
        (pod("Pending", [waiting("PodInitializing")], [RUNNING], deleted=True), "Terminating", "0/1"),
        (pod("Succeeded", [DONE], deleted=True), "Completed", "0/1"),
        (pod("Failed", reason="Evicted"), "Evicted", "0/1"),
        (pod("Failed", reason="OutOfcpu"), "OutOfcpu", "0/1"),
        (pod("Unknown", [RUNNING]), "Unknown", "1/1"),
        (pod("Running", [RUNNING], conditions={"Ready": "Unknown"}), "Running", "1/1"),
        (pod("Running", [RUNNING], deleted=True, reason="NodeLost"), "NodeLost", "1/1"),
    ],
)
def test_status_and_ready(given: pod_pb2.Pod, shown: str, ready: str) -> None:
    assert (statuses.shown(given), str(statuses.ready(given))) == (shown, ready)


def test_a_pod_on_a_silent_node_is_unknown_until_it_is_lost() -> None:
    given = pod("Running", [RUNNING])
    given.status.conditions.add(type="Ready", status="Unknown", reason="NodeStatusUnknown")
    assert statuses.shown(given) == "Unknown"
    given.status.reason = "NodeLost"
    given.metadata.deletionTimestamp.FromSeconds(1)
    assert statuses.shown(given) == "NodeLost"


def test_a_gated_pod_says_so() -> None:
    given = pod("Pending")
    given.status.conditions.add(type="PodScheduled", status="False", reason="SchedulingGated")
    assert statuses.shown(given) == "SchedulingGated"


def test_restarts_count_init_containers_only_while_they_run() -> None:
    given = pod("Pending", [waiting("PodInitializing")], [DONE, RUNNING])
    for status, count in zip(given.status.initContainerStatuses, (1, 2), strict=True):
        status.restartCount = count
        status.lastState.terminated.finishedAt.FromSeconds(100 * count)
    assert statuses.restarts(given).total == 3
    last = statuses.restarts(given).last
    assert last is not None
    assert last.seconds == 200
    given.status.initContainerStatuses[1].state.CopyFrom(from_tree(DONE, pod_pb2.ContainerState))
    assert statuses.restarts(given) == (0, None)


def test_every_status_is_explained_in_full() -> None:
    for one in EXPLANATIONS:
        assert explain(one.name) is one
        assert all((one.kind, one.meaning, one.cause, one.fix))
    assert len({one.name for one in EXPLANATIONS}) == len(EXPLANATIONS)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        *OLDER_NAMES.items(),
        ("crashloopbackoff", "CrashLoopBackOff"),
        ("Init:CrashLoopBackOff", "CrashLoopBackOff"),
        ("Init:3/7", "Init:i/n"),
        ("Init:Signal:9", "Error"),
        ("ExitCode:3", "Error"),
    ],
)
def test_other_spellings_resolve(word: str, name: str) -> None:
    assert explain(word).name == name


def test_an_unknown_status_names_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"did you mean CrashLoopBackOff\?"):
        explain("CrashLopBackOff")

"""What a deployment says of its progress."""

from __future__ import annotations

from controlplane.controllers import progress
from controlplane.controllers.deployment import plan
from controlplane.controllers.replicas import spare
from controlplane.controllers.revisions import expired, new_set
from podplane.v1 import apps_pb2, pod_pb2
from tests.controlplane.controllers import world


def deployment(replicas: int = 2) -> apps_pb2.Deployment:
    made = apps_pb2.Deployment(apiVersion="apps/v1", kind="Deployment")
    made.metadata.name, made.metadata.uid, made.metadata.generation = "web", "uid", 1
    made.spec.replicas, made.spec.progressDeadlineSeconds = replicas, 60
    made.spec.selector.matchLabels["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    return made


def replica_set(owner: apps_pb2.Deployment, available: int) -> apps_pb2.ReplicaSet:
    made = new_set(owner, 0, owner.spec.replicas, 1)
    made.status.replicas, made.status.availableReplicas, made.status.readyReplicas = 2, available, available
    return made


def progressing(live: apps_pb2.Deployment) -> tuple[str, str]:
    found = progress.condition(live.status, "Progressing")
    return (found.status, found.reason) if found is not None else ("", "")


def advance(live: apps_pb2.Deployment, new: apps_pb2.ReplicaSet, now: float) -> None:
    live.status.CopyFrom(progress.compute(live, new, [], now))


def test_a_rollout_without_progress_exceeds_its_deadline_and_recovers() -> None:
    live = deployment()
    new = replica_set(live, 0)
    advance(live, new, 1000)
    assert progressing(live) == ("True", "NewReplicaSetCreated")
    new.status.availableReplicas = 1
    advance(live, new, 1010)
    assert progressing(live) == ("True", "ReplicaSetUpdated")
    assert progress.next_check(live, live.status, 1010) == 61
    advance(live, new, 1070)
    assert progressing(live) == ("True", "ReplicaSetUpdated")
    advance(live, new, 1071)
    assert progressing(live) == ("False", "ProgressDeadlineExceeded")
    before = live.status.SerializeToString(deterministic=True)
    advance(live, new, 2000)
    assert live.status.SerializeToString(deterministic=True) == before
    new.status.availableReplicas = new.status.readyReplicas = 2
    advance(live, new, 2001)
    assert progressing(live) == ("True", "NewReplicaSetAvailable")


def test_a_paused_deployment_makes_no_new_set_and_says_so() -> None:
    live = deployment()
    old = replica_set(live, 2)
    live.spec.template.metadata.labels["version"] = "2"
    live.spec.paused = True
    assert plan(live, None, [old], old_pods=True).create is None
    live.status.CopyFrom(progress.compute(live, None, [old], 1000))
    assert progressing(live) == ("Unknown", "DeploymentPaused")
    live.spec.paused = False
    assert plan(live, None, [old], old_pods=True).create == 1
    live.status.CopyFrom(progress.compute(live, None, [old], 1001))
    assert progressing(live)[0] in ("Unknown", "True")


def test_history_keeps_as_many_empty_sets_as_the_limit_says() -> None:
    live = deployment()
    live.spec.revisionHistoryLimit = 1
    old = []
    for number in (3, 1, 2):
        made = new_set(live, number, 0, number)
        made.metadata.generation = made.status.observedGeneration = 1
        old.append(made)
    assert [each.metadata.annotations["deployment.kubernetes.io/revision"] for each in expired(live, old)] == ["1", "2"]


def _pod(name: str, node: str = "n", ready: bool = True, since: int = 100, phase: str = "Running") -> pod_pb2.Pod:
    made = world.pod(name)
    made.spec.nodeName, made.status.phase = node, phase
    condition = made.status.conditions.add(type="Ready", status="True" if ready else "False")
    condition.lastTransitionTime.FromSeconds(since)
    return made


def test_pods_that_can_be_spared_most_go_first() -> None:
    cheap = _pod("cheap")
    cheap.metadata.annotations["controller.kubernetes.io/pod-deletion-cost"] = "-5"
    pods = [
        _pod("old", "a", since=10),
        _pod("young", "a2", since=90),
        _pod("doubled-1", "b", since=10),
        _pod("doubled-2", "b", since=20),
        cheap,
        _pod("unready", "c", ready=False),
        _pod("pending", "d", ready=False, phase="Pending"),
        _pod("unbound", "", ready=False, phase="Pending"),
    ]
    order = [each.metadata.name for each in spare(pods, pods)]
    assert order == ["unbound", "pending", "unready", "cheap", "doubled-2", "doubled-1", "young", "old"]

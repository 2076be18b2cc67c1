"""Deployments change within their bounds, go back, stop where they cannot go on, and take their pods with them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import DEPLOYMENT, POD, REPLICA_SET
from tests.support.api import Api, Watch, is_ready
from tests.support.objects import manifest
from tests.support.waiting import eventually

TEXT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling, namespace: default}
spec:
  replicas: 4
  progressDeadlineSeconds: 3
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}
  selector: {matchLabels: {app: rolling}}
  template:
    metadata: {labels: {app: rolling}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: main, image: host, command: [/bin/sleep, infinity], env: [{name: VERSION, value: "1"}]}
"""


@pytest.fixture
def rolling(cluster: Cluster, api: Api) -> Iterator[None]:
    api.apply(manifest(TEXT)[0])
    assert status(cluster).returncode == 0
    yield
    if api.find(DEPLOYMENT, "rolling"):
        api.delete(DEPLOYMENT, "rolling")
    eventually(lambda: not pods(api), 15, "the end of the deployment's pods")


def podctl(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(cluster.podctl), *words]
    return subprocess.run(argv, env=cluster.environment, capture_output=True, text=True, timeout=60, check=False)


def status(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    return podctl(cluster, "rollout", "status", "deployment/rolling", "--timeout=30s")


def pods(api: Api) -> list[str]:
    return [found.metadata.name for found in api.list(POD, "default") if found.metadata.labels["app"] == "rolling"]


def bounds(watch: Watch) -> tuple[int, int]:
    """The most pods not being deleted and the fewest ready ones, since the watch's own snapshot."""
    standing: dict[str, tuple[bool, bool]] = {}
    most, fewest, begun = 0, 99, False
    for event in watch.events:
        begun = begun or event.type == "BOOKMARK"
        found = event.object
        if found.metadata.labels.get("app") != "rolling":
            continue
        standing[found.metadata.uid] = (not found.metadata.HasField("deletionTimestamp"), is_ready(found))
        if event.type == "DELETED":
            del standing[found.metadata.uid]
        if begun:
            most = max(most, sum(stays for stays, _ in standing.values()))
            fewest = min(fewest, sum(ready for _, ready in standing.values()))
    return most, fewest


@pytest.mark.usefixtures("rolling")
def test_a_rollout_and_its_undoing_keep_to_their_bounds(cluster: Cluster, api: Api) -> None:
    watch = api.watch(POD, "default")
    try:
        api.apply(manifest(TEXT.replace('value: "1"', 'value: "2"'))[0])
        assert status(cluster).returncode == 0
        eventually(lambda: len(pods(api)) == 4, 10, "the end of the old pods")
        assert len(api.list(REPLICA_SET, "default")) >= 2
        undone = podctl(cluster, "rollout", "undo", "deployment/rolling")
        assert undone.stdout == "deployment.apps/rolling rolled back\n", undone.stderr
        assert status(cluster).returncode == 0
        spec = api.get(DEPLOYMENT, "rolling").spec.template.spec
        assert spec.containers[0].env[0].value == "1"
        most, fewest = bounds(watch)
        assert most == 5
        assert fewest >= 3
    finally:
        watch.close()


@pytest.mark.usefixtures("rolling")
def test_a_rollout_that_cannot_go_on_keeps_the_old_pods(cluster: Cluster, api: Api) -> None:
    api.apply(manifest(TEXT.replace("image: host", 'image: "NO::image"'))[0])
    failed = status(cluster)
    assert failed.returncode == 1
    assert 'deployment "rolling" exceeded its progress deadline' in failed.stderr
    assert api.get(DEPLOYMENT, "rolling").status.availableReplicas == 3


@pytest.mark.usefixtures("rolling")
def test_orphans_stay_and_what_is_owned_goes(cluster: Cluster, api: Api) -> None:
    before = sorted(pods(api))
    assert podctl(cluster, "delete", "deployment", "rolling", "--cascade=orphan").returncode == 0
    assert sorted(pods(api)) == before
    again = podctl(cluster, "delete", "replicaset", "-l", "app=rolling")
    assert again.returncode == 0, again.stderr
    eventually(lambda: not pods(api), 15, "the end of the pods of a deleted replica set")

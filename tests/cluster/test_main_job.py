"""The main job on real input: from a manifest of the usual shape to pages served by every node."""

from __future__ import annotations

import http.client
import subprocess
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from devcluster.cluster import CHECKOUT, Cluster
from podplane.kinds import DEPLOYMENT, NAMESPACE, POD
from podplane.statuses import shown
from podplane.v1 import pod_pb2
from tests.support.api import Api, is_ready
from tests.support.objects import namespace
from tests.support.waiting import eventually

SVG = "{http://www.w3.org/2000/svg}"
MANIFEST = CHECKOUT / "examples" / "web-with-init.yaml"


def podctl(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(cluster.podctl), *arguments]
    return subprocess.run(argv, env=cluster.environment, capture_output=True, text=True, timeout=60, check=False)


def page(address: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        return answer.read().decode()
    finally:
        connection.close()


def in_order(seen: list[str], wanted: list[str]) -> bool:
    """True where `wanted` is a subsequence of `seen`."""
    rest = iter(seen)
    return all(any(status == one for one in rest) for status in wanted)


@pytest.mark.timeout(120)
def test_the_usual_manifest_runs_and_is_served_by_every_node(cluster: Cluster, api: Api) -> None:
    refused = podctl(cluster, "apply", "-f", str(MANIFEST))
    assert refused.returncode == 1
    assert 'namespaces "pages" not found' in refused.stderr
    assert "podctl create namespace pages" in refused.stderr

    api.create(namespace("pages"))
    watch = api.watch(POD, "pages")
    try:
        applied = podctl(cluster, "apply", "-f", str(MANIFEST))
        assert applied.returncode == 0, applied.stderr
        assert "deployment.apps/pages created" in applied.stdout
        events = watch.until(lambda events: any(is_ready(event.object) for event in events), 60)
        statuses = [shown(event.object) for event in events]
        assert in_order(statuses, ["Pending", "Init:0/2", "Init:1/2", "PodInitializing", "Running"]), statuses

        pod = events[-1].object
        assert_inits_in_order(pod)
        assert {condition.type for condition in pod.status.conditions if condition.status == "True"} >= {
            "PodScheduled", "Initialized", "ContainersReady", "Ready",
        }  # fmt: skip
        assert all(condition.lastTransitionTime.seconds > 0 for condition in pod.status.conditions)
        assert_no_status_for_steps_alone([event.object for event in events])
        assert_start_is_drawn(cluster, pod)
        for node in cluster.nodes:
            body = eventually(partial(_page_or_none, cluster.node_address(node)), 15, f"page of {node}")
            assert len(body.splitlines()) == 10, body
    finally:
        watch.close()
        podctl(cluster, "delete", "-f", str(MANIFEST))
        api.delete(NAMESPACE, "pages", "")
        api.gone(NAMESPACE, "pages", "")
    assert api.find(DEPLOYMENT, "pages", "pages") is None


def assert_inits_in_order(pod: pod_pb2.Pod) -> None:
    first, second = (status.state.terminated for status in pod.status.initContainerStatuses)
    app = pod.status.containerStatuses[0].state.running
    assert (first.reason, second.reason) == ("Completed", "Completed")
    assert first.startedAt.seconds > 0
    assert first.finishedAt.ToNanoseconds() <= second.startedAt.ToNanoseconds()
    assert second.finishedAt.ToNanoseconds() <= app.startedAt.ToNanoseconds()


def assert_no_status_for_steps_alone(seen: list[pod_pb2.Pod]) -> None:
    """The steps of a start ride along with statuses that have something else to say."""
    for before, after in pairwise(seen):
        if list(before.status.startSteps) != list(after.status.startSteps):
            first, second = (
                pod_pb2.PodStatus.FromString(found.status.SerializeToString()) for found in (before, after)
            )
            first.ClearField("startSteps")
            second.ClearField("startSteps")
            assert first != second


def assert_start_is_drawn(cluster: Cluster, pod: pod_pb2.Pod) -> None:
    """podctl timeline shows every step that took the node time, in order, and the picture has a bar for each."""
    inits = [status.name for status in pod.status.initContainerStatuses]
    steps = [f"{step} {name}" for name in (*inits, "web") for step in ("pull", "create", "start")]
    wanted = ["scheduling", "binding", "sandbox", "volumes", *steps]
    took = {f"{one.step} {one.container}".strip(): one.tookMicroseconds for one in pod.status.startSteps}
    assert list(took) == wanted[2:]
    assert 0 < min(took.values()) <= max(took.values()) < 60e6, took

    drawn = podctl(cluster, "timeline", "-n", "pages", pod.metadata.name)
    assert drawn.returncode == 0, drawn.stderr
    assert in_order([line[2:].split("  ")[0] for line in drawn.stdout.splitlines()], wanted), drawn.stdout
    picture = podctl(cluster, "timeline", "-n", "pages", pod.metadata.name, "-o", "svg")
    assert picture.returncode == 0, picture.stderr
    bars = [str(bar.findtext(f"{SVG}title")) for bar in ElementTree.fromstring(picture.stdout).iter(f"{SVG}rect")]
    assert in_order([bar.partition(":")[0] for bar in bars], wanted), bars


def _page_or_none(address: str) -> str | None:
    try:
        return page(address, 30081, "/pages/index.html")
    except OSError:
        return None


def test_applying_again_changes_no_resource_version(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    manifest = tmp_path / "again.yaml"
    manifest.write_text(
        (CHECKOUT / "examples" / "web.yaml").read_text().replace("demo", "again").replace("30080", "30090")
    )
    api.create(namespace("again"))
    try:
        assert podctl(cluster, "apply", "-f", str(manifest)).returncode == 0
        api_ready = eventually(lambda: [p for p in api.list(POD, "again") if is_ready(p)], 30)
        assert len(api_ready) == 1
        eventually(lambda: api.get(DEPLOYMENT, "web", "again").status.availableReplicas == 1)
        before = api.get(DEPLOYMENT, "web", "again").metadata.resourceVersion
        again = podctl(cluster, "apply", "-f", str(manifest))
        assert again.stdout.splitlines() == ["deployment.apps/web unchanged", "service/web unchanged"]
        assert api.get(DEPLOYMENT, "web", "again").metadata.resourceVersion == before

        labelled = manifest.read_text().replace(
            "    app: web\nspec:\n  replicas", "    app: web\n    tier: front\nspec:\n  replicas"
        )
        manifest.write_text(labelled)
        assert podctl(cluster, "apply", "-f", str(manifest)).returncode == 0
        assert api.get(DEPLOYMENT, "web", "again").metadata.labels["tier"] == "front"
        manifest.write_text(labelled.replace("    tier: front\n", ""))
        assert podctl(cluster, "apply", "-f", str(manifest)).returncode == 0
        assert dict(api.get(DEPLOYMENT, "web", "again").metadata.labels) == {"app": "web"}
    finally:
        api.delete(NAMESPACE, "again", "")
        api.gone(NAMESPACE, "again", "")

"""Bad input gets a clear error that names the place, and nothing is stored."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import CONFIG_MAP, DEPLOYMENT, POD, SERVICE
from tests.support.api import Api

POD_TEXT = """apiVersion: v1
kind: Pod
metadata:
  name: bad
spec:
  containers:
    - name: main
      image: host
      command: [/bin/sleep, infinity]
"""
DEPLOYMENT_TEXT = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: bad
spec:
  selector:
    matchLabels: {app: one}
  template:
    metadata:
      labels: {app: two}
    spec:
      containers: [{name: main, image: host}]
"""
SERVICE_TEXT = """apiVersion: v1
kind: Service
metadata:
  name: bad
spec:
  type: NodePort
  ports: [{port: 80, nodePort: PORT}]
"""

CASES = {
    "unknown field": (POD_TEXT + "  restartPolice: Always\n", "spec.restartPolice", "unknown field"),
    "snake case": (POD_TEXT + "  restart_policy: Always\n", "spec.restart_policy", "restartPolicy"),
    "wrong type": (POD_TEXT + "  terminationGracePeriodSeconds: soon\n", "spec.terminationGracePeriodSeconds", "soon"),
    "duplicate key": (POD_TEXT + "      image: other\n", "spec.containers[0].image", "duplicate"),
    "bad name": (POD_TEXT.replace("name: bad", "name: Bad_Name"), "metadata.name", "Bad_Name"),
    "missing image": (POD_TEXT.replace("      image: host\n", ""), "spec.containers[0].image", "Required value"),
    "one name twice": (POD_TEXT + "    - {name: main, image: host}\n", "spec.containers[1].name", "Duplicate value"),
    "selector": (DEPLOYMENT_TEXT, "spec.template.metadata.labels", "selector"),
    "port range": (SERVICE_TEXT.replace("PORT", "80"), "spec.ports[0].nodePort", "30000-32767"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_manifests_are_refused(cluster: Cluster, api: Api, tmp_path: Path, case: str) -> None:
    text, path, words = CASES[case]
    done = apply(cluster, tmp_path, text)
    assert done.returncode == 1, done.stdout
    assert path in done.stderr
    assert words in done.stderr
    assert "manifest.yaml" in done.stderr
    for kind, name in ((POD, "bad"), (POD, "Bad_Name"), (DEPLOYMENT, "bad"), (SERVICE, "bad")):
        assert api.find(kind, name) is None


def test_a_taken_node_port_is_refused(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    text = SERVICE_TEXT.replace("PORT", "30777")
    assert apply(cluster, tmp_path, text).returncode == 0
    try:
        done = apply(cluster, tmp_path, text.replace("name: bad", "name: second"))
        assert done.returncode == 1
        assert "provided port is already allocated" in done.stderr
        assert api.find(SERVICE, "second") is None
    finally:
        api.delete(SERVICE, "bad")


def test_an_object_of_two_mebibytes_is_refused(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata:\n  blob: " + "x" * (2 << 20) + "\n"
    done = apply(cluster, tmp_path, text)
    assert done.returncode == 1
    assert "1048576" in done.stderr or "too large" in done.stderr.lower() or "Too long" in done.stderr
    assert api.find(CONFIG_MAP, "big") is None


def test_a_missing_config_map_is_named_and_awaited(cluster: Cluster, api: Api, tmp_path: Path) -> None:
    reference = "      env: [{name: A, valueFrom: {configMapKeyRef: {name: later, key: a}}}]\n"
    assert apply(cluster, tmp_path, POD_TEXT.replace("name: bad", "name: waits") + reference).returncode == 0
    try:
        found = api.pod_when(
            "waits",
            lambda found: any(
                status.state.waiting.reason == "CreateContainerConfigError" for status in found.status.containerStatuses
            ),
        )
        assert found.status.containerStatuses[0].state.waiting.message == 'configmap "later" not found'
        made = apply(cluster, tmp_path, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {a: b}\n")
        assert made.returncode == 0
        api.pod_when("waits", lambda found: found.status.containerStatuses[0].restartCount >= 0
                     and not found.status.containerStatuses[0].state.HasField("waiting"))  # fmt: skip
    finally:
        api.delete(POD, "waits", grace=0)
        api.gone(POD, "waits")
        if api.find(CONFIG_MAP, "later"):
            api.delete(CONFIG_MAP, "later")


def apply(cluster: Cluster, directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    manifest = directory / "manifest.yaml"
    manifest.write_text(text)
    argv = [str(cluster.podctl), "apply", "-f", str(manifest)]
    return subprocess.run(argv, env=cluster.environment, capture_output=True, text=True, timeout=30, check=False)

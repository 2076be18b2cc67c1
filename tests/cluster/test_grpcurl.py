"""Everything that podctl does can be done with grpcurl: the binary, reflection, Kubernetes' field names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from tests.support.api import Api

GRPCURL = Path(sys.executable).parent / "grpcurl"
TOKEN = "authorization: Bearer ${PODPLANE_TOKEN}"


class Grpcurl:
    """The binary, with this cluster's certificate and the token in the environment."""

    def __init__(self, cluster: Cluster) -> None:
        self._server = cluster.server
        self._options = ["-cacert", str(cluster.certificate_authority), "-expand-headers", "-H", TOKEN]
        self._environment = {**os.environ, "PODPLANE_TOKEN": cluster.token_file.read_text().strip()}

    def argv(self, *words: str, data: str | None = None) -> list[str]:
        return [str(GRPCURL), *self._options, *(["-d", data] if data is not None else []), self._server, *words]

    def __call__(self, *words: str, data: str | None = None) -> str:
        done = subprocess.run(
            self.argv(*words, data=data), env=self._environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def watch(self, data: str) -> subprocess.Popen[str]:
        argv = self.argv("podplane.v1.Pods/Watch", data=data)
        return subprocess.Popen(argv, env=self._environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def grpcurl(cluster: Cluster) -> Grpcurl:
    return Grpcurl(cluster)


def documents(stream: Iterator[str]) -> Iterator[Any]:
    """JSON documents, one after the other, from lines: grpcurl ends each with a lone brace."""
    text = ""
    for line in stream:
        text += line
        if line == "}\n":
            yield json.loads(text)
            text = ""


def test_reflection_lists_the_services(grpcurl: Grpcurl) -> None:
    listed = grpcurl("list").split()
    assert {"podplane.v1.Pods", "podplane.v1.Deployments", "podplane.v1.Nodes", "grpc.health.v1.Health"} <= set(listed)
    assert "rpc Create ( .podplane.v1.Pod ) returns ( .podplane.v1.Pod );" in grpcurl("describe", "podplane.v1.Pods")


def test_the_life_of_a_pod(grpcurl: Grpcurl, api: Api) -> None:
    manifest = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "curled", "namespace": "default"},
        "spec": {
            "initContainers": [{"name": "first", "image": "host", "command": ["/bin/echo", "made ready"]}],
            "containers": [{"name": "main", "image": "host", "command": ["/bin/sh", "-c", "echo served; sleep 600"]}],
        },
    }  # fmt: skip
    watch = grpcurl.watch(json.dumps({"namespace": "default", "fieldSelector": "metadata.name=curled"}))
    try:
        created = json.loads(grpcurl("podplane.v1.Pods/Create", data=json.dumps(manifest)))
        assert created["spec"]["restartPolicy"] == "Always"
        assert created["metadata"]["resourceVersion"]
        assert watch.stdout is not None
        phases = []
        for frame in documents(watch.stdout):
            phases += [e["object"].get("status", {}).get("phase") for e in frame["events"] if e["type"] != "BOOKMARK"]
            if "Running" in phases:
                break
        assert phases[0] == "Pending"
        pod = json.loads(grpcurl("podplane.v1.Pods/Get", data='{"namespace": "default", "name": "curled"}'))
        assert pod["status"]["podIP"]
        assert pod["status"]["hostIP"]
        logged = grpcurl(
            "podplane.v1.Pods/Logs", data='{"namespace": "default", "name": "curled", "container": "main"}'
        )
        assert json.loads(logged)["text"] == "served\n"
        grpcurl("podplane.v1.Pods/Delete", data='{"namespace": "default", "name": "curled", "gracePeriodSeconds": 0}')
        api.gone(POD, "curled")
    finally:
        watch.terminate()
        watch.wait(timeout=10)
        if watch.stdout:
            watch.stdout.close()

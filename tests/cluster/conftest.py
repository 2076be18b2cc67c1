"""One cluster of three nodes for the tests that share it; the heavy-handed ones make their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import CLUSTERS, Cluster, Options
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.archives import busybox, pack
from tests.support.hostile import Hostile
from tests.support.images import BUSYBOX, CENTOS, NGINX
from tests.support.objects import pod
from tests.support.registry import Registry
from tests.support.waiting import eventually

MakeCluster = Callable[..., Cluster]
Make = Callable[..., pod_pb2.Pod]
NODE = "node-2"
"""Whose pods `make` makes."""


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The image names of the usual manifests, served on every address of this machine."""
    with contextlib.closing(Registry(tmp_path_factory.mktemp("registry"), "0.0.0.0")) as registry:
        registry.push(NGINX, "library/nginx:1.20.0")
        registry.push(CENTOS, "library/centos:7.9.2009")
        registry.push(BUSYBOX, "library/busybox:1.28")
        yield registry


@pytest.fixture(scope="session")
def hostile() -> Iterator[Hostile]:
    """A registry whose faults a test chooses, and resets; every cluster's nodes may ask it without TLS."""
    hostile = Hostile(pack(busybox()), "0.0.0.0")
    yield hostile
    hostile.close()


@pytest.fixture(scope="session")
def clusters(registry: Registry, hostile: Hostile) -> Iterator[MakeCluster]:
    """Makes clusters, each removed at the end."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")  # several run beside each other
    made: list[Cluster] = []

    def make(name: str, nodes: int = 3, **options: object) -> Cluster:
        directory = CLUSTERS / f"test-{worker}-{name}"
        Cluster(directory).down()
        directory.mkdir(parents=True)
        cluster = Cluster(directory)
        mirror = directory / "registries.conf"
        here = cluster.address
        mirror.write_text(registry.mirror_at(here) + registry.conf(here) + hostile.conf(here))
        cluster = Cluster(directory, Options(registries_conf=mirror, **options))  # type: ignore[arg-type]
        made.append(cluster)
        cluster.up(nodes)
        cluster.await_ready(nodes)
        return cluster

    yield make
    for cluster in made:
        cluster.down()


@pytest.fixture(scope="session")
def cluster(clusters: MakeCluster) -> Cluster:
    """The shared cluster: three nodes. A test leaves it as it found it."""
    return clusters("shared")


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Api]:
    """An administrator's client of the shared cluster."""
    with client(cluster) as api:
        yield api


def client(cluster: Cluster, token: Path | None = None) -> Api:
    """A client of a cluster with the administrator's token, or another."""
    return Api(cluster.server, cluster.certificate_authority, (token or cluster.token_file).read_text())


@pytest.fixture
def make(api: Api) -> Iterator[Make]:
    """Creates pods on one node, which are gone after the test."""
    names: list[str] = []

    def create(
        name: str,
        script: str,
        policy: str = "Always",
        resources: Mapping[str, Mapping[str, str]] | None = None,
        **spec: Any,
    ) -> pod_pb2.Pod:
        made = pod(name, "/bin/sh", "-c", script, nodeName=NODE, terminationGracePeriodSeconds=0, restartPolicy=policy,
                   **spec)  # fmt: skip
        for what, quantities in (resources or {}).items():
            getattr(made.spec.containers[0].resources, what).update(quantities)
        names.append(name)
        found: pod_pb2.Pod = api.create(made)
        return found

    yield create
    for name in names:
        if api.find(POD, name):
            api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name, seconds=60)


def main(found: pod_pb2.Pod) -> pod_pb2.ContainerStatus:
    return found.status.containerStatuses[0]


def in_pod(cluster: Cluster, uid: str) -> set[int]:
    """The processes of a pod."""
    found: set[int] = set()
    for procs in Path("/sys/fs/cgroup/pids").glob(f"{cluster.cgroup(NODE)}/**/pod{uid}/*/cgroup.procs"):
        with contextlib.suppress(OSError):
            found.update(map(int, procs.read_text().split()))
    return found


def begin(cluster: Cluster, **environment: str) -> str:
    """Start the node's agent anew; what it has said until it is connected."""
    cluster.kill(NODE)
    known = len(cluster.log(NODE).read_text())
    cluster.start_node(NODE, environment)
    return eventually(lambda: said if "session open" in (said := cluster.log(NODE).read_text()[known:]) else "")

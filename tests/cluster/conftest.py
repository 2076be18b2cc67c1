"""One cluster of three nodes for the tests that share it; the heavy-handed ones make their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster.cluster import CLUSTERS, Cluster, Options
from tests.support.api import Api
from tests.support.archives import busybox, pack
from tests.support.hostile import Hostile
from tests.support.images import BUSYBOX, CENTOS, NGINX
from tests.support.registry import Registry

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The image names of the usual manifests, served on every address of this machine."""
    registry = Registry(tmp_path_factory.mktemp("registry"), "0.0.0.0")
    registry.push(NGINX, "library/nginx:1.20.0")
    registry.push(CENTOS, "library/centos:7.9.2009")
    registry.push(BUSYBOX, "library/busybox:1.28")
    yield registry
    registry.close()


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

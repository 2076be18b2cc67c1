"""A rolling update under load loses no request: SIGTERM comes after the pod has left every node's rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from controlplane.store.log import Write
from controlplane.store.sqlite import SqliteLog
from controlplane.store.stored import key_of
from devcluster.cluster import Cluster
from nodeagent.pods.stopping import HOLD
from podplane.kinds import DEPLOYMENT, EVENT, POD, SERVICE
from tests.cluster.conftest import client
from tests.support.api import Api
from tests.support.load import Load
from tests.support.network import own_mode_afterwards, restart_in
from tests.support.objects import manifest
from tests.support.waiting import eventually, promised

PORT = 30444
# At SIGTERM it answers whoever is connected, and is gone: what comes later is refused.
SERVER = """
import asyncio, signal
async def answer(reader, writer):
    await reader.readuntil(b'\\r\\n\\r\\n')
    writer.write(b'HTTP/1.0 200 OK\\r\\n\\r\\nserved')
    await writer.drain()
    writer.close()
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(answer, '0.0.0.0', 80)
    await stop.wait()
    server.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=5)
asyncio.run(main())
"""
TEXT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: loaded, namespace: default}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: loaded}}
  template:
    metadata: {labels: {app: loaded}}
    spec:
      containers:
        - name: main
          image: host
          command: [/usr/bin/python3, -S, -c, SERVER]
          env: [{name: VERSION, value: "0"}]
          readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: loaded, namespace: default}
spec:
  type: NodePort
  selector: {app: loaded}
  ports: [{port: 80, nodePort: 30444}]
"""


@pytest.fixture
def loaded(cluster: Cluster, api: Api) -> Iterator[Load]:
    """The deployment at version 0, and requests to it through every node."""
    api.apply(deployed(0))
    api.apply(manifest(TEXT)[1])
    eventually(lambda: is_at(api, 0), 60, "the deployment")
    addresses = [cluster.node_address(node) for node in cluster.nodes]
    load = Load(PORT, addresses)
    eventually(lambda: load.done, 20, "the first requests")
    yield load
    for kind, name in ((SERVICE, "loaded"), (DEPLOYMENT, "loaded")):
        api.delete(kind, name)
    eventually(lambda: not _pods(api), 45, "the end of the deployment's pods")


def deployed(version: int) -> Message:
    """The deployment at a version."""
    made: Any = manifest(TEXT)[0]
    container = made.spec.template.spec.containers[0]
    container.command[-1], container.env[0].value = SERVER, str(version)
    return made  # type: ignore[no-any-return]


def _pods(api: Api) -> list[Any]:
    return [each for each in api.list(POD, "default") if each.metadata.labels.get("app") == "loaded"]


def is_at(api: Api, version: int) -> bool:
    """Whether every pod is of this version and the rollout is over, the old pods' ends included."""
    status = api.get(DEPLOYMENT, "loaded").status
    versions = [each.spec.containers[0].env[0].value for each in _pods(api)]
    return versions == [str(version)] * 3 and status.availableReplicas == status.updatedReplicas == 3


def roll(api: Api, *versions: int) -> None:
    """Rolling updates to these versions, each to its end."""
    for version in versions:
        api.apply(deployed(version))
        eventually(lambda version=version: is_at(api, version), 120, f"version {version}")  # type: ignore[misc]


@pytest.mark.timeout(300)
def test_rolling_updates_lose_no_request_in_either_mode_nor_between(cluster: Cluster, api: Api, loaded: Load) -> None:
    roll(api, 1)
    with own_mode_afterwards(cluster):
        restart_in(cluster, "nftables", "loaded")
        roll(api, 2)
        counted = loaded.end()
    assert counted["done"] > 500
    assert counted["failed"] == 0, counted["words"]


@pytest.mark.deep
def test_a_pod_that_frozen_rules_lead_to_has_until_the_deadline(cluster: Cluster, api: Api, loaded: Load) -> None:
    assert loaded.end()["failed"] == 0
    first, second = [each.metadata.name for each in _pods(api)][:2]
    assert _end(api, first) < promised(HOLD)
    service = api.get(SERVICE, "loaded")
    service.spec.type = "LoadBalancer"
    service = api.update(service)
    service.status.loadBalancer.ingress.add(ip="nowhere")
    _store_unjudged(cluster, service)
    about = "involvedObject.name=loaded,reason=FailedToProgramService"
    with client(cluster) as api:
        eventually(lambda: len(api.list(EVENT, "default", fieldSelector=about)) == 3, 20, "an event of every node")
        # Its rules go on leading to the pod: nobody may believe that it is out of them.
        assert _end(api, second) >= HOLD


def _store_unjudged(cluster: Cluster, service: Any) -> None:
    """Have the control plane find a service in its store that it would not have let in."""
    service.metadata.ClearField("resourceVersion")
    write = Write(key_of(SERVICE, "default", service.metadata.name), service.SerializeToString(deterministic=True))

    async def commit() -> None:
        log = await SqliteLog.open(cluster.root / "controlplane")
        await log.commit([write])
        await log.close()

    cluster.stop("controlplane")
    asyncio.run(commit())
    cluster.start_control_plane()


def _end(api: Api, name: str) -> float:
    """Delete a pod, which ends at SIGTERM; how long it took."""
    started = time.monotonic()
    api.delete(POD, name)
    api.gone(POD, name)
    return time.monotonic() - started


@pytest.mark.deep
def test_twenty_rolling_updates_lose_none_of_200_000_requests(api: Api, loaded: Load) -> None:
    roll(api, *range(1, 21))
    eventually(lambda: loaded.done >= 200_000, 900, "200,000 requests")
    counted = loaded.end()
    assert counted["done"] >= 200_000
    assert counted["failed"] == 0, counted["words"]

"""The control plane dies, or comes back with nothing; acknowledged writes and running pods stay (L1-L3, L9)."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from typing import cast

import grpc
import pytest

from devcluster.cluster import Cluster
from podplane.kinds import CONFIG_MAP, EVENT, NODE
from podplane.v1 import config_pb2, event_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.cluster.test_agent_faults import facts
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually


@pytest.fixture
def own(clusters: MakeCluster) -> Iterator[Cluster]:
    cluster = clusters("controlplane", nodes=1)
    yield cluster
    cluster.down()


def config_map(number: int) -> config_pb2.ConfigMap:
    made = config_pb2.ConfigMap(apiVersion="v1", kind="ConfigMap", data={"a": f"{number}", "b": f"{number}" * 50})
    made.metadata.name, made.metadata.namespace = f"write-{number}", "default"
    return made


class Writer:
    """Applies config maps one after the other until the server is gone; remembers which were acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        self.acknowledged: dict[str, str] = {}
        self._cluster = cluster
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with client(self._cluster) as api:
            for number in range(100_000):
                try:
                    stored = api.apply(config_map(number))
                except grpc.RpcError as error:
                    if cast("grpc.Call", error).code() is grpc.StatusCode.UNAVAILABLE:
                        return
                    raise
                self.acknowledged[stored.metadata.name] = stored.metadata.resourceVersion

    def join(self) -> None:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


@pytest.mark.timeout(180)
def test_a_killed_control_plane_keeps_every_acknowledged_write(own: Cluster) -> None:
    with client(own) as api:
        api.create(pod("bystander"))
        before = facts(api.running("bystander"))
    for _ in range(3):
        writer = Writer(own)
        eventually(lambda writer=writer: len(writer.acknowledged) >= 200, 30)  # type: ignore[misc]
        own.kill("controlplane")
        writer.join()
        own.start_control_plane()
        with client(own) as api:
            stored = {found.metadata.name: found for found in _every(api)}
            for name, version in writer.acknowledged.items():
                assert int(stored[name].metadata.resourceVersion) >= int(version)
            for name, found in stored.items():
                number = name.removeprefix("write-")
                assert dict(found.data) == {"a": number, "b": number * 50}
    with client(own) as api:
        own.await_ready(1)
        assert facts(api.running("bystander")) == before


@pytest.mark.timeout(180)
def test_an_empty_store_removes_no_pod(own: Cluster) -> None:
    with client(own) as api:
        api.create(pod("orphan"))
        api.running("orphan")
    pid = own.container_pids()
    assert pid
    own.kill("controlplane")
    shutil.rmtree(own.root / "controlplane" / "store", ignore_errors=True)
    for file in (own.root / "controlplane").glob("store.sqlite*"):
        file.unlink()
    own.reinitialise()
    own.start_control_plane()
    with client(own) as api:
        eventually(lambda: api.find(NODE, "node-1", ""), 30, "the node's registration")
        told = eventually(lambda: _event(api, "UnknownPodsKept"), 30, "the report of the kept pods")
        assert "default/orphan" in told.message
        # A second hello must not remove them either: by then the agent knows the new store's name.
        own.kill("node-1")
        own.start_node("node-1")
        try:
            eventually(lambda: _connected_again(api, told), 30, "the second report")
        except AssertionError as error:
            raise AssertionError(f"{error}; {_told(own, api)}") from None
    assert own.container_pids() == pid


def _told(own: Cluster, api: Api) -> str:
    """What was said and noted, for a message."""
    said = "\n".join(own.log(name).read_text()[-2000:] for name in ("node-1", "controlplane"))
    return f"events: {list(map(str, api.list(EVENT, '')))[-6:]}; said:\n{said}"


def _event(api: Api, reason: str) -> event_pb2.Event | None:
    return next((found for found in api.list(EVENT, "") if found.reason == reason), None)


def _connected_again(api: Api, told: event_pb2.Event) -> bool:
    found = _event(api, told.reason)
    return found is not None and found.count > told.count


def _every(api: Api) -> list[config_pb2.ConfigMap]:
    return [found for found in api.list(CONFIG_MAP, "default") if found.metadata.name.startswith("write-")]

"""hostPort: a port of the pod's node leads to the pod, for as long as it is there, and is a matter of scheduling."""

from __future__ import annotations

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.network import connects
from tests.support.objects import pod
from tests.support.waiting import eventually

PORT = 18081
SERVE = ("busybox", "httpd", "-f", "-p", "80")
NODES = 3


def _server(name: str, host_port: int = PORT, **port: str) -> pod_pb2.Pod:
    made = pod(name, *SERVE, terminationGracePeriodSeconds=0)
    made.spec.containers[0].ports.add(containerPort=80, hostPort=host_port, **port)
    return made


def test_a_host_port_leads_to_the_pod_on_its_node_and_ends_with_it(cluster: Cluster, api: Api) -> None:
    try:
        server, local = _server("server"), _server("local", PORT + 1, hostIP="127.0.0.1")
        server.spec.nodeName = local.spec.nodeName = "node-1"
        for each in (server, local):
            api.create(each)
        found = api.running("server")
        api.running("local")
        node, address = found.spec.nodeName, found.status.hostIP
        for where in (node, "node-2"):
            eventually(lambda where=where: connects(cluster, where, address, PORT), 10, f"the port from {where}")  # type: ignore[misc]
        assert connects(cluster, node, "127.0.0.1", PORT)
        assert not connects(cluster, "node-2", "127.0.0.1", PORT)
        # From a pod of another node.
        dial = f"busybox nc -w 5 {address} {PORT} </dev/null && echo reached"
        client = pod("client", "/bin/sh", "-c", dial, restartPolicy="Never")
        client.spec.nodeName = "node-2"
        api.create(client)
        api.pod_when("client", lambda pod: pod.status.phase == "Succeeded")
        assert api.logs("client") == b"reached\n"
        # A port of one address answers there only.
        eventually(lambda: connects(cluster, node, "127.0.0.1", PORT + 1), 10, "the port of one address")
        assert not connects(cluster, node, address, PORT + 1)
        api.delete(POD, "server", grace=0)
        api.gone(POD, "server")
        eventually(lambda: not connects(cluster, node, address, PORT), 10, "the end of the port")
    finally:
        _remove(api, "server", "local", "client")


def test_one_pod_of_a_node_holds_a_host_port_and_the_last_finds_no_node(api: Api) -> None:
    names = [f"holder-{index}" for index in range(NODES + 1)]
    try:
        for name in names:
            api.create(_server(name))
            if name != names[-1]:
                api.pod_when(name, lambda found: found.spec.nodeName)
        assert len({api.get(POD, name).spec.nodeName for name in names[:-1]}) == NODES
        waiting = api.pod_when(names[-1], lambda found: _unschedulable(found))
        message = _unschedulable(waiting)
        assert message.startswith(
            f"0/{NODES} nodes are available: {NODES} node(s) didn't have free ports for the requested pod ports."
        )
        # Another protocol is another port, and a port that comes free is taken.
        api.create(_server("datagrams", protocol="UDP"))
        api.running("datagrams")
        api.delete(POD, names[0], grace=0)
        api.running(names[-1])
    finally:
        _remove(api, *names, "datagrams")


def _unschedulable(found: pod_pb2.Pod) -> str:
    return "".join(item.message for item in found.status.conditions if item.reason == "Unschedulable")


def _remove(api: Api, *names: str) -> None:
    for name in names:
        if api.find(POD, name) is not None:
            api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name)

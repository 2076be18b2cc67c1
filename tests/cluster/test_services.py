"""Services as clients meet them: from outside, from a node and from a pod, over TCP and UDP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD, SERVICE
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.network import restart_in
from tests.support.objects import manifest
from tests.support.waiting import eventually

# Answers its name on two TCP ports and one UDP port, and asks what its first argument names, again and again.
SERVER = """
import socket, socketserver, threading, time, sys
name = socket.gethostname().encode()
class Stream(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(name)
class Datagram(socketserver.BaseRequestHandler):
    def handle(self): self.request[1].sendto(name, self.client_address)
socketserver.ThreadingTCPServer.allow_reuse_address = True
servers = [socketserver.ThreadingTCPServer(("", port), Stream) for port in (8080, 9090)]
servers.append(socketserver.ThreadingUDPServer(("", 5353), Datagram))
for server in servers: threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    try:
        with socket.create_connection((sys.argv[1], 30071), 2) as s: print(s.recv(99).decode(), flush=True)
    except OSError as error: print(error, flush=True)
    time.sleep(0.2)
"""
ASK = """
import socket, sys, time
kind = socket.SOCK_DGRAM if sys.argv[3] == "udp" else socket.SOCK_STREAM
start = time.monotonic()
with socket.socket(socket.AF_INET, kind) as s:
    s.settimeout(2)
    try:
        s.connect((sys.argv[1], int(sys.argv[2])))
        if sys.argv[3] == "udp": s.send(b"?")
        print(s.recv(99).decode())
    except OSError as error: print(type(error).__name__, "slow" if time.monotonic() - start > 1 else "at once")
"""
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: many, namespace: default}
spec:
  type: NodePort
  selector: {app: server}
  ports:
    - {name: web, port: 80, targetPort: web, nodePort: 30071}
    - {name: admin, port: 81, targetPort: 9090}
    - {name: time, port: 53, targetPort: 5353, protocol: UDP, nodePort: 30073}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: default}
spec: {type: NodePort, selector: {app: nobody}, ports: [{port: 80, nodePort: 30072}]}
"""


def server(name: str, node: str, address: str) -> pod_pb2.Pod:
    made = pod_pb2.Pod(apiVersion="v1", kind="Pod")
    made.metadata.name, made.metadata.namespace = name, "default"
    made.metadata.labels["app"] = "server"
    made.spec.nodeName = node
    command = ["/usr/bin/python3", "-c", SERVER, address]
    made.spec.containers.add(name="main", image="host", command=command).ports.add(name="web", containerPort=8080)
    return made


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks: this machine, or a node."""

    cluster: Cluster
    node: str | None = None

    def __call__(self, address: str, port: int, protocol: str = "tcp") -> str:
        words = [sys.executable, "-c", ASK, address, str(port), protocol]
        argv = self.cluster.inside(self.node, words) if self.node else words
        return subprocess.run(argv, capture_output=True, text=True, timeout=15, check=True).stdout.strip()


@pytest.fixture
def served(cluster: Cluster, api: Api) -> Iterator[dict[str, str]]:
    """The cluster addresses of the services `many` and `empty`, with servers a (node-1) and b (node-2)."""
    try:
        for name, node in (("a", "node-1"), ("b", "node-2")):
            api.create(server(name, node, cluster.node_address(node)))
        made = [api.create(service) for service in manifest(SERVICES)]
        yield {service.metadata.name: service.spec.clusterIP for service in made}
    finally:
        for name in ("a", "b"):
            if api.find(POD, name):
                api.delete(POD, name, grace=0)
                api.gone(POD, name)
        for name in ("many", "empty"):
            if api.find(SERVICE, name):
                api.delete(SERVICE, name)


def test_a_service_answers_from_everywhere_and_on_every_port(
    cluster: Cluster, api: Api, served: dict[str, str]
) -> None:
    outside, node = Asked(cluster), Asked(cluster, "node-3")
    for name in ("a", "b"):
        api.running(name)
    many, far = served["many"], cluster.node_address("node-3")
    for ask, address, port, protocol in [
        (outside, far, 30071, "tcp"), (outside, far, 30073, "udp"), (node, far, 30071, "tcp"),
        (node, cluster.node_address("node-1"), 30071, "tcp"), (node, many, 80, "tcp"), (node, many, 81, "tcp"),
        (node, many, 53, "udp"),
    ]:  # fmt: skip
        both = partial(_gathers, partial(ask, address, port, protocol), set())
        eventually(both, 15, f"both servers behind {address}:{port}/{protocol}")
    # Each server asks its own node's port: another pod's answer and, hairpin, its own come back.
    eventually(lambda: {"a", "b"} <= set(api.logs("a").decode().split()), 15, "the answers a pod gets")


def test_without_endpoints_a_service_refuses_at_once(cluster: Cluster, api: Api, served: dict[str, str]) -> None:
    outside, node = Asked(cluster), Asked(cluster, "node-3")
    for ask, address, port in [(outside, cluster.node_address("node-2"), 30072), (node, served["empty"], 80)]:
        eventually(partial(_refuses, partial(ask, address, port)), 10, f"the refusal of {address}:{port}")


def test_a_deleted_pod_serves_no_more(cluster: Cluster, api: Api, served: dict[str, str]) -> None:
    ask = Asked(cluster)
    for name in ("a", "b"):
        api.running(name)
    api.delete(POD, "a", grace=0)
    api.gone(POD, "a")
    far = cluster.node_address("node-3")
    eventually(lambda: [ask(far, 30071) for _ in range(8)] == ["b"] * 8, 10, "the end of server a")


def test_nodes_change_their_mode_and_leave_nothing_of_the_one_before(
    cluster: Cluster, api: Api, served: dict[str, str]
) -> None:
    outside = Asked(cluster)
    for name in ("a", "b"):
        api.running(name)
    traces = {"iptables": "PODPLANE-", "nftables": "podplane-services"}
    try:
        for mode, other in (("nftables", "iptables"), ("iptables", "nftables")):
            restart_in(cluster, mode, "many")
            for node in cluster.nodes:
                both = partial(_gathers, partial(outside, cluster.node_address(node), 30071), set())
                eventually(both, 15, f"both servers behind {node}'s port in mode {mode}")
                rules = subprocess.run(cluster.inside(node, ["nft", "list", "ruleset"]), capture_output=True, text=True,
                                       timeout=20, check=True).stdout  # fmt: skip
                assert traces[mode] in rules
                assert traces[other] not in rules
                # The tables of iptables were there because of us alone.
                assert ("table ip nat" in rules) == (mode == "iptables")
    except BaseException:
        for node in cluster.nodes:  # others share the cluster
            cluster.stop(node)
            cluster.start_node(node)
        raise


def _gathers(ask: Callable[[], str], answers: set[str]) -> bool:
    answers.add(ask())
    return answers >= {"a", "b"}


def _refuses(ask: Callable[[], str]) -> bool:
    return ask() == "ConnectionRefusedError at once"

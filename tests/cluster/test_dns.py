"""Names as pods resolve them: with the C library's resolver and the resolv.conf that a pod gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import NODE, POD, SERVICE
from tests.cluster.conftest import client
from tests.support.api import Api
from tests.support.objects import manifest, pod
from tests.support.waiting import eventually

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: default}
spec: {selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: every, namespace: default}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {told: always}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: front.default.svc.cluster.local}
"""
# Resolves each name that it is given, again and again: `name=address,address`, and the reverse of an address.
RESOLVE = """
import socket, sys, time
while True:
    said = []
    for name in sys.argv[1:]:
        try:
            if name[0].isdigit(): found = [socket.gethostbyaddr(name)[0]]
            else: found = {entry[4][0] for entry in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)}
            said.append(name + "=" + ",".join(sorted(found)))
        except OSError as error: said.append(name + "=" + type(error).__name__)
    print(" ".join(said), flush=True)
    time.sleep(0.3)
"""


@pytest.fixture
def database(api: Api) -> Iterator[Callable[[str, str], str]]:
    """Makes pods behind the services, called by their hostname; `db-9` never ready; returns a pod's address."""
    made: list[str] = []
    for service in manifest(SERVICES):
        api.create(service)

    def make(name: str, node: str) -> str:
        db = pod(name, hostname=name, subdomain="db", nodeName=node)
        db.metadata.labels["app"] = "db"
        if name != "db-0":
            db.metadata.labels["told"] = "always"
        if name == "db-9":
            db.spec.containers[0].readinessProbe.exec.command.append("/bin/false")
        api.create(db)
        made.append(name)
        return str(api.pod_when(name, lambda found: found.status.phase == "Running").status.podIP)

    yield make
    for name in made:
        if api.find(POD, name) is not None:
            api.delete(POD, name, grace=0)
    for name in ("db", "front", "every", "alias"):
        api.delete(SERVICE, name)
    for name in made:
        api.gone(POD, name)


def last(api: Api, name: str) -> dict[str, str]:
    lines = api.logs(name, tailLines=1).decode().splitlines()
    return dict(item.split("=") for item in lines[-1].split()) if lines else {}


def resolves(api: Api, expected: dict[str, str]) -> None:
    """Wait until the asker resolves all as expected; say what differs otherwise."""
    wrong: dict[str, str] = {}

    def right() -> bool:
        said = last(api, "asker")
        wrong.clear()
        wrong.update({name: said.get(name, "?") for name in expected if said.get(name) != expected[name]})
        return not wrong

    try:
        eventually(right, seconds=15, what="the names")
    except AssertionError as error:
        raise AssertionError(f"{error}; wrong: {wrong}") from None


def test_pods_resolve_services_and_one_another_by_their_short_names(
    api: Api, cluster: Cluster, database: Callable[[str, str], str]
) -> None:
    first, second, never = database("db-0", "node-1"), database("db-1", "node-2"), database("db-9", "node-2")
    portal = api.get(SERVICE, "front").spec.clusterIP
    names = [
        "front",
        "front.default",
        "front.default.svc.cluster.local",
        "alias",
        "db",
        "db-1.db",
        "db-9.db",
        "every",
        "none.default.svc.cluster.local.",
        first,
        portal,
    ]
    api.create(pod("asker", "/usr/bin/python3", "-c", RESOLVE, *names, nodeName="node-3"))
    try:
        api.running("asker")
        expected = {
            "front": portal,
            "front.default": portal,
            "front.default.svc.cluster.local": portal,
            "alias": portal,
            "db": ",".join(sorted((first, second))),
            "db-1.db": second,
            "db-9.db": "gaierror",
            "every": ",".join(sorted((second, never))),
            "none.default.svc.cluster.local.": "gaierror",
            first: "db-0.db.default.svc.cluster.local",
            portal: "front.default.svc.cluster.local",
        }
        resolves(api, expected)
        # Answers follow the endpoints.
        api.delete(POD, "db-1", grace=0)
        gone = expected | {"db": first, "db-1.db": "gaierror", "every": never}
        resolves(api, gone)
    finally:
        api.delete(POD, "asker", grace=0)
        api.gone(POD, "asker")


def test_a_pods_resolv_conf_asks_the_node_and_searches_its_namespace(api: Api, cluster: Cluster) -> None:
    api.create(pod("reader", "/bin/cat", "/etc/resolv.conf", restartPolicy="Never"))
    try:
        done = api.pod_when("reader", lambda found: found.status.phase == "Succeeded")
        lines = api.logs("reader").decode().splitlines()
        gateway = IPv4Network(api.get(NODE, done.spec.nodeName).spec.podCIDR)[1]
        assert f"nameserver {gateway}" in lines
        assert "options ndots:5" in lines
        (search,) = [line for line in lines if line.startswith("search ")]
        assert search.split()[1:4] == ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    finally:
        api.delete(POD, "reader", grace=0)
        api.gone(POD, "reader")


def test_names_are_served_while_the_control_plane_is_away_and_the_agent_begins_anew(
    clusters: Callable[..., Cluster],
) -> None:
    """Asked from the node itself, before and after: its server has what the node kept."""
    cluster = clusters("dns", 1)
    ask = (
        "import sys, dns.message, dns.query\n"
        "for name in ('front', 'db', 'db-0.db'):\n"
        "    q = dns.message.make_query(name + '.default.svc.cluster.local.', 'A')\n"
        "    a = dns.query.udp(q, sys.argv[1], timeout=2)\n"
        "    print(name, sorted(str(d) for s in a.answer for d in s))\n"
    )

    def asked(server: str) -> str:
        argv = cluster.inside("node-1", [sys.executable, "-c", ask, server])
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout

    with client(cluster) as api:
        for service in manifest(SERVICES):
            api.create(service)
        db = pod("db-0", hostname="db-0", subdomain="db")
        db.metadata.labels["app"] = "db"
        api.create(db)
        address = str(api.running("db-0").status.podIP)
        gateway = ".".join([*address.split(".")[:3], "1"])
        portal = api.get(SERVICE, "front").spec.clusterIP
    whole = f"front ['{portal}']\ndb ['{address}']\ndb-0.db ['{address}']\n"
    eventually(lambda: asked(gateway) == whole, what="the names")
    cluster.stop("controlplane")
    assert asked(gateway) == whole
    cluster.kill("node-1")
    cluster.start_node("node-1")
    eventually(lambda: asked(gateway) == whole, what="the names from the agent that began without a control plane")

"""podctl why service, against real daemons and real kernels: what agrees, and which link is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import EVENT, POD, SERVICE
from tests.support.api import Api
from tests.support.objects import manifest, pod
from tests.support.terminal import podctl
from tests.support.waiting import eventually

SERVICE_TEXT = """
apiVersion: v1
kind: Service
metadata: {name: asked, namespace: default}
spec:
  type: NodePort
  selector: {app: asked}
  ports: [{name: web, port: 80, targetPort: web, nodePort: 30111}]
"""
# Stands for a node's own iptables-restore that has stopped to work: nothing is written, everything is read.
BROKEN_RESTORE = """#!/bin/bash
case "$0" in
*restore) echo "iptables-restore is out of order" >&2; exit 1 ;;
esac
exec -a "$0" /run/whole-iptables "$@"
"""


def why(cluster: Cluster, *words: str) -> tuple[int, str]:
    done = podctl(cluster, "why", "service", "asked", *words)
    return done.returncode, (done.stdout + done.stderr).decode()


def told(cluster: Cluster, *words: str) -> Any:
    status, text = why(cluster, "-o", "json", *words)
    assert text.startswith("{"), (status, text)
    return json.loads(text)


def agrees(cluster: Cluster, endpoints: int) -> bool:
    status, text = why(cluster)
    words = f"default/asked: all 3 nodes agree with its {endpoints} ready endpoint"
    return status == 0 and text.startswith(words)


@pytest.fixture
def asked(cluster: Cluster, api: Api) -> Iterator[Api]:
    """The service `asked` with a ready pod on node-1 and one on node-2."""
    try:
        for name, node in (("asked-1", "node-1"), ("asked-2", "node-2")):
            made = pod(name, nodeName=node)
            made.metadata.labels["app"] = "asked"
            made.spec.containers[0].ports.add(name="web", containerPort=8080)
            api.create(made)
        for service in manifest(SERVICE_TEXT):
            api.create(service)
        for name in ("asked-1", "asked-2"):
            api.running(name)
        eventually(lambda: agrees(cluster, 2), 20, "that all nodes agree")
        yield api
    finally:
        for found in api.list(POD, "default"):
            if found.metadata.name.startswith("asked-"):
                api.delete(POD, found.metadata.name, grace=0)
                api.gone(POD, found.metadata.name)
        if api.find(SERVICE, "asked"):
            api.delete(SERVICE, "asked")


def test_a_service_in_order_is_told_so_with_the_way_of_a_packet(cluster: Cluster, asked: Api) -> None:
    found = told(cluster)
    assert found["healthy"] is True
    assert [(row["name"], row["state"], row["rules"]["mode"]) for row in found["nodes"]] == [
        (f"node-{number}", "Agrees", "iptables") for number in (1, 2, 3)
    ]
    assert all(row["programmedRevision"] >= found["revision"] for row in found["nodes"])
    status, text = why(cluster, "--from", "pod/asked-1", "--to", "cluster-ip:web")
    assert status == 0
    assert "node-1 leads it to one of asked-1 (" in text
    assert text.rstrip().endswith("sees the client's address")
    [path] = told(cluster, "--from", "outside", "--to", f"{cluster.node_address('node-3')}:30111")["paths"]
    assert (path["node"], path["arrives"], path["way"]["masquerade"]) == ("node-3", True, True)
    assert {end["pod"] for end in path["endpoints"]} == {"asked-1", "asked-2"}
    assert b"is no address of default/asked" in podctl(cluster, "why", "svc/asked", "--to", "192.0.2.7").stderr
    assert b'services "absent" not found' in podctl(cluster, "why", "service", "absent").stderr


def test_links_before_the_rules_are_named(cluster: Cluster, asked: Api) -> None:
    service = asked.get(SERVICE, "asked")
    service.spec.selector["app"] = "askd"
    asked.update(service)
    eventually(lambda: "answers nobody: NoPodMatches" in why(cluster)[1], 15, "the selector that matches nothing")
    status, text = why(cluster, "--from", "node/node-1")
    assert status == 1
    assert "the nearest, asked-1, has app=asked" in text
    service = asked.get(SERVICE, "asked")
    service.spec.selector["app"] = "asked"
    service.spec.ports[0].targetPort.string_value = "http"
    asked.update(service)
    words = 'NoSuchPortName: targetPort "http" of port web/TCP is no port of pod asked-1, pod asked-2'
    eventually(lambda: words in why(cluster)[1], 15, "the port's name that no container has")
    service = asked.get(SERVICE, "asked")
    service.spec.ports[0].targetPort.string_value = "web"
    asked.update(service)
    lame = pod("asked-3", "/bin/false", nodeName="node-3", restartPolicy="Never")
    lame.metadata.labels["app"] = "asked"
    asked.create(lame)
    eventually(lambda: "PodFinished: pod asked-3 on node-3 matches" in why(cluster)[1], 15, "the pod that has failed")


def test_a_node_that_is_away_is_a_row_that_says_how_old_its_rules_are(cluster: Cluster, asked: Api) -> None:
    cluster.stop("node-3")
    try:
        asked.delete(POD, "asked-2", grace=0)
        asked.gone(POD, "asked-2")
        eventually(lambda: told(cluster)["nodes"][1]["state"] == "Agrees", 15, "node-2's rules without asked-2")
        status, text = why(cluster)
        assert (status, text.partition(";")[0]) == (1, "default/asked: 2 of 3 nodes agree")
        [row] = [line for line in text.splitlines() if line.startswith("node-3")]
        assert "NotConnected" in row
        assert "not heard of for" in row
        assert f"and the service needs {told(cluster)['revision']}" in row
        [path] = told(cluster, "--to", "node/node-3")["paths"]
        assert path["verdict"].startswith("unknown: node node-3 is not connected; its rules are those of revision")
    finally:
        cluster.start_node("node-3")
    eventually(lambda: agrees(cluster, 1), 20, "that all nodes agree again")


def test_a_rule_that_is_gone_from_a_kernel_is_named(cluster: Cluster, asked: Api) -> None:
    def on_node(*argv: str, text: str = "") -> None:
        words = cluster.inside("node-2", argv)
        subprocess.run(words, input=text, text=True, check=True, timeout=20, capture_output=True)

    iptables = "/usr/sbin/xtables-nft-multi"
    on_node("cp", iptables, "/run/whole-iptables")
    on_node("cp", "/dev/stdin", "/run/broken-iptables", text=BROKEN_RESTORE)
    on_node("chmod", "755", "/run/broken-iptables")
    on_node("mount", "--bind", "/run/broken-iptables", iptables)
    try:
        on_node("nft", "flush", "chain", "ip", "nat", "PODPLANE-NODEPORTS")
        eventually(lambda: "iptables-restore is out of order" in why(cluster)[1], 15, "the node that cannot mend")
        status, text = why(cluster, "--from", "outside", "--to", "node/node-2:web")
        assert status == 1
        assert "default/asked: 2 of 3 nodes agree; RulesNotProgrammed: node-2: " in text
        assert "missing: nat PODPLANE-NODEPORTS: -p tcp" in text
        assert "lost on node-2, whose kernel lacks: nat PODPLANE-NODEPORTS: " in text
        [path] = told(cluster, "--from", "outside", "--to", "node/node-1")["paths"]
        assert path["arrives"]
        states = {row["name"]: row["state"] for row in told(cluster)["nodes"]}
        assert states == {"node-1": "Agrees", "node-2": "NotProgrammed", "node-3": "Agrees"}
    finally:
        on_node("umount", iptables)
        on_node("rm", "/run/broken-iptables", "/run/whole-iptables")
    eventually(lambda: agrees(cluster, 2), 20, "that node-2 has mended it")


HOLD = "import socket, sys; s = socket.create_server(('', 32111)); print('held', flush=True); sys.stdin.read()"


def warned(api: Api, reason: str, name: str = "asked") -> dict[str, str]:
    """By node, what it says of a service, in events of this reason."""
    about = f"involvedObject.kind=Service,involvedObject.name={name}"
    found = api.list(EVENT, "default", fieldSelector=f"{about},reason={reason},type=Warning")
    return {event.source.host: event.message for event in found}


def balance(api: Api, name: str, *ips: str) -> None:
    """Say, as a load balancer's controller does, that the service is asked for at these addresses."""
    service = api.get(SERVICE, name)
    service.status.loadBalancer.ClearField("ingress")
    for ip in ips:
        service.status.loadBalancer.ingress.add(ip=ip)
    api.call(SERVICE, "UpdateStatus", service)


def test_a_service_that_cannot_be_programmed_has_events_that_say_so(cluster: Cluster, asked: Api) -> None:
    service = asked.get(SERVICE, "asked")
    service.spec.type, service.spec.externalTrafficPolicy = "LoadBalancer", "Local"
    service.spec.healthCheckNodePort = 32111
    words = cluster.inside("node-1", [sys.executable, "-c", HOLD])
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        asked.update(service)
        message = "on node node-1: cannot answer health checks on port 32111: Address already in use"
        expected = {"node-1": message}
        eventually(lambda: warned(asked, "FailedToStartServiceHealthcheck") == expected, 15, "the event of node-1")
        # Its rules are there all the same.
        _, text = why(cluster, "--from", "outside", "--to", "node/node-1")
        assert "node-1 leads it to asked-1 (" in text
        assert "RulesNotProgrammed: node-1: cannot answer health checks on port 32111" in text
        holder.communicate()
    eventually(lambda: agrees(cluster, 2), 20, "that node-1 answers health checks")
    text = SERVICE_TEXT.replace("asked, n", "younger, n").replace("NodePort\n", "LoadBalancer\n")
    for rival in manifest(text.replace(", nodePort: 30111", "")):
        asked.create(rival)
    try:
        balance(asked, "younger", "192.0.2.50")
        its = ("why", "service", "younger", "--to", "192.0.2.50")
        eventually(lambda: podctl(cluster, *its).returncode == 0, 15, "that it has the address")
        balance(asked, "asked", "192.0.2.50")
        taken = "192.0.2.50:80/TCP is already that of default/asked"
        said = {f"node-{n}": f"on node node-{n}: {taken}" for n in (1, 2, 3)}
        eventually(lambda: warned(asked, "FailedToProgramService", "younger") == said, 15, "an event of every node")
        done = podctl(cluster, *its, "--from", "node/node-1")
        assert (done.returncode, done.stdout.count(b"NotProgrammed  ")) == (1, 3)
        assert f"node node-1 has no such rule: {taken}" in done.stdout.decode()
        assert "Warning" in podctl(cluster, "describe", "service", "younger").stdout.decode()
        balance(asked, "asked")
        eventually(lambda: podctl(cluster, *its).returncode == 0, 15, "that it has the address again")
    finally:
        asked.delete(SERVICE, "younger")
    eventually(lambda: agrees(cluster, 2), 20, "that all nodes agree")

"""Three nodes on three kernels, two of them on one segment and the third a hop away, with services by IPVS.

What is shown needs machines that are really apart: a tunnel over a router, a volume that nodes share, a slow and lossy
line, a cable that is pulled, a power cut.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.net.kernel import inside as within
from tests.vm.conftest import MakeDisk, MakeMachine
from tests.vm.lan import Lan
from tests.vm.machine import Machine, Nic, Shape
from tests.vm.site import Site

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

PORT = 30080
GRACE, TOLERATION = 30, 10
"""Seconds: of silence after which a node is not ready, and after which its pods are replaced."""
ADDRESSES = {"one": "10.9.0.2", "two": "10.9.0.3", "far": "10.9.1.2"}
BIG = 3_000_000
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: host
        command:
        - /bin/sh
        - -c
        - head -c 3000000 /dev/zero >/data/big; echo "$NODE" >/data/index.html; exec busybox httpd -f -p 80 -h /data
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        resources: {requests: {cpu: 200m}}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 80, nodePort: 30080}]
"""


VISITOR = """
apiVersion: v1
kind: Pod
metadata: {name: visitor, namespace: default}
spec:
  nodeName: far
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: host, command: [/bin/sh, -c, "echo came; exec sleep infinity"]}]
"""
PATIENT = """
apiVersion: v1
kind: Pod
metadata: {name: patient, namespace: default}
spec:
  nodeName: two
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists, effect: NoExecute}]
  containers: [{name: main, image: host, command: [/bin/sleep, infinity]}]
"""


def writer(node: str) -> str:
    """A pod on a node that leaves a file on the share."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: writer-{node}, namespace: default}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: host
    command: [/bin/sh, -c, "echo by-{node} >/share/{node}; exec sleep infinity"]
    volumeMounts: [{{name: share, mountPath: /share}}]
  volumes: [{{name: share, nfs: {{server: 10.9.0.2, path: /export}}}}]
"""


@dataclass(frozen=True)
class Three:
    """The cluster."""

    lan: Lan
    site: Site
    nics: dict[str, Nic]
    machines: dict[str, Machine]

    @property
    def one(self) -> Machine:
        return self.machines["one"]

    def pods(self, **labels: str) -> list[dict[str, Any]]:
        """Pods with these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[dict[str, Any]] = json.loads(self.site.podctl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return found

    def web(self) -> dict[str, dict[str, Any]]:
        """The ready pods of the service, by node; the last of a node."""
        return {pod["spec"]["nodeName"]: pod for pod in self.pods(app="web") if _is_ready(pod)}

    def ask(self, node: str, seconds: float = 20.0) -> str:
        """The node whose pod answers at this node's port; "" where none does."""

        def get() -> str:
            connection = http.client.HTTPConnection(ADDRESSES[node], PORT, timeout=seconds)
            try:
                connection.request("GET", "/")
                return connection.getresponse().read().decode().strip()
            finally:
                connection.close()

        try:
            return within(self.lan.pin, get)
        except OSError:
            return ""

    def answered_by(self, node: str, expected: set[str]) -> None:
        """Wait until these nodes' pods answer at a node's port, and none else; "" is no answer."""
        last: set[str] = set()

        def probe() -> bool:
            last.clear()
            last.update(self.ask(node) for _ in range(12))
            return last == expected

        try:
            self.one.eventually(probe, 30, f"{sorted(expected)} answer at {node}")
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {sorted(last)}") from None

    def inside(self, node: str, *argv: str, seconds: float = 30) -> str:
        """Run a command in the service's pod on a node."""
        pod = self.web()[node]["metadata"]["name"]
        return self.site.podctl("exec", pod, "--", *argv, seconds=seconds)


@pytest.fixture(scope="module")
def three(boot: MakeMachine, make_disk: MakeDisk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with Lan("10.9.0.1/24", "10.9.1.1/24") as lan:
        nics = {name: lan.nic(address, int(name == "far")) for name, address in ADDRESSES.items()}
        shapes = [Shape(name, disk=make_disk(name), nic=nics[name], cpus=1, memory=768) for name in ADDRESSES]
        with ThreadPoolExecutor(len(shapes)) as pool:
            machines = dict(zip(ADDRESSES, pool.map(boot, shapes), strict=True))
            site = Site(lan, tmp_path_factory.mktemp("site"))
            list(pool.map(site.install, machines.values()))
            site.serve(machines["one"], ADDRESSES["one"], grace=GRACE, toleration=TOLERATION)
            list(pool.map(lambda machine: site.join(machine, "PODPLANE_PROXY_MODE=ipvs"), machines.values()))
        for name, machine in machines.items():
            site.ready(machine, name)
        cluster = Three(lan, site, nics, machines)
        site.podctl("apply", "-f", "-", text=WEB)
        cluster.one.eventually(lambda: cluster.web().keys() == ADDRESSES.keys(), 60, "a ready pod on every node")
        yield cluster
        for machine in machines.values():
            machine.close()


def test_the_port_of_every_node_leads_to_pods_of_all(three: Three) -> None:
    address = three.site.get("service", "web")["spec"]["clusterIP"]
    pods = {f"{_hex(pod['status']['podIP'])}:0050" for pod in three.web().values()}
    for node, machine in three.machines.items():
        three.answered_by(node, set(ADDRESSES))
        assert _virtual_server(machine.read("/proc/net/ip_vs").decode(), f"{_hex(address)}:0050") == pods


def test_pods_reach_each_other_over_the_tunnel_and_beside_it(three: Three) -> None:
    for source, target in (("one", "two"), ("one", "far"), ("far", "two")):
        address = three.web()[target]["status"]["podIP"]
        script = f"busybox wget -qO- http://{address}/big | wc -c"
        assert int(three.inside(source, "sh", "-c", script, seconds=60)) == BIG
    # A route to the neighbour, a tunnel to the one that is a router away.
    routes = three.one.run("ip", "-j", "route", "show")
    ways = {each["dst"]: each["dev"] for each in json.loads(routes)}
    nodes = {name: three.site.get("node", name)["spec"]["podCIDR"] for name in ADDRESSES}
    assert ways[nodes["two"]] == "eth0"
    links = json.loads(three.one.run("ip", "-j", "-d", "link", "show", ways[nodes["far"]]))
    assert links[0]["linkinfo"]["info_kind"] == "vxlan"


def test_a_pod_finds_the_service_by_its_name(three: Three) -> None:
    names = {
        three.inside("far", "busybox", "wget", "-qO-", f"http://{name}/").strip()
        for name in ("web", "web.default", "web.default.svc.cluster.local") * 3
    }
    assert names <= ADDRESSES.keys()
    assert len(names) > 1


def test_pods_of_two_nodes_share_an_nfs_volume(three: Three) -> None:
    three.one.shell(
        "mkdir -p /export && chmod 0777 /export"
        " && echo '/export *(rw,sync,no_root_squash,insecure,no_subtree_check)' >/etc/exports"
        " && systemctl unmask nfs-server && systemctl start nfs-server && exportfs -ra",
        seconds=60,
    )
    for node in ("two", "far"):
        three.site.podctl("apply", "-f", "-", text=writer(node))
    for node in ("two", "far"):
        three.site.pod_when(f"writer-{node}", lambda pod: bool(pod["status"]["phase"] == "Running"), three.one)
    for node, other in (("two", "far"), ("far", "two")):
        read = three.site.podctl("exec", f"writer-{node}", "--", "cat", f"/share/{other}")
        assert read == f"by-{other}\n"
    assert three.one.shell("ls /export").split() == ["far", "two"]
    for node in ("two", "far"):
        three.site.podctl("delete", "pod", f"writer-{node}", seconds=60)
    assert "/export" not in three.machines["far"].read("/proc/mounts").decode()


def test_a_slow_and_lossy_line_costs_time_and_no_pod(three: Three) -> None:
    far = three.machines["far"]
    before = {pod["metadata"]["uid"] for pod in three.web().values()}
    far.shell("modprobe sch_netem && tc qdisc add dev eth0 root netem delay 150ms 20ms loss 5%")
    try:
        begun = time.monotonic()
        assert three.ask("far") in ADDRESSES
        assert time.monotonic() - begun > 0.15, "the line is not slow: this shows nothing"
        three.site.podctl("apply", "-f", "-", text=VISITOR)
        three.site.pod_when("visitor", lambda pod: bool(pod["status"]["phase"] == "Running"), far, seconds=90)
        assert three.site.podctl("exec", "visitor", "--", "echo", "here") == "here\n"
        assert three.site.podctl("logs", "visitor") == "came\n"
        three.site.podctl("delete", "pod", "visitor", seconds=60)
    finally:
        far.run("tc", "qdisc", "del", "dev", "eth0", "root")
    assert {pod["metadata"]["uid"] for pod in three.web().values()} == before


def test_pods_behind_a_pulled_cable_are_replaced_and_end_when_it_is_back(three: Three) -> None:
    far, there = three.machines["far"], {"one", "two"}
    lost = {pod["metadata"]["uid"] for pod in three.pods(app="web") if pod["spec"]["nodeName"] == "far"}
    assert _servers_running(far) == len(lost) > 0
    three.lan.plug(three.nics["far"], False)
    try:
        three.one.eventually(lambda: _is_silent(three.site, "far"), GRACE + 30, "far is not ready")
        three.one.eventually(lambda: set(_living(three)) == there and len(_living(three)) == 3, 60, "a replacement")
        for node in there:
            three.answered_by(node, there)
        # What the node that is away has, nobody can end.
        assert _servers_running(far) == len(lost)
    finally:
        three.lan.plug(three.nics["far"], True)
    three.site.ready(far, "far")
    three.one.eventually(
        lambda: lost.isdisjoint(pod["metadata"]["uid"] for pod in three.pods(app="web")), 60, "the end of their objects"
    )
    far.eventually(lambda: _servers_running(far) == 0, 30, "the end of the stale copies")
    three.answered_by("far", there)


def test_a_node_whose_power_was_cut_comes_back_with_its_pods(three: Three) -> None:
    two = three.machines["two"]
    three.site.podctl("apply", "-f", "-", text=PATIENT)
    before = three.site.pod_when("patient", _is_ready, two)
    two.power_cut()
    two.power_on()
    after = three.site.pod_when("patient", lambda pod: _is_ready(pod) and _restarts(pod) == 1, two, seconds=120)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    three.one.eventually(lambda: len(_living(three)) == 3, 120, "three pods of the service")
    for node in ADDRESSES:
        three.answered_by(node, set(_living(three)))


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _living(three: Three) -> list[str]:
    """The nodes of the ready pods that nobody has asked to end."""
    return [
        pod["spec"]["nodeName"]
        for pod in three.pods(app="web")
        if _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
    ]


def _restarts(pod: dict[str, Any]) -> int:
    return int(pod["status"]["containerStatuses"][0].get("restartCount", 0))


def _servers_running(machine: Machine) -> int:
    return int(machine.attempt("pgrep", "-xc", "busybox").text)


def _is_silent(site: Site, node: str) -> bool:
    conditions = site.get("node", node)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "Unknown" for each in conditions)


def _hex(address: str) -> str:
    return "".join(f"{int(part):02X}" for part in address.split("."))


def _virtual_server(text: str, name: str) -> set[str]:
    """The real servers of a TCP virtual server in /proc/net/ip_vs."""
    found: set[str] = set()
    mine = False
    for line in text.splitlines():
        words = line.split()
        if words[0] == "->":
            if mine:
                found.add(words[1])
        else:
            mine = words[:2] == ["TCP", name]
    return found

"""Pods that share the node's network, ipc or processes, and pods of which every name is exact."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.network import connects
from tests.support.objects import manifest
from tests.support.waiting import eventually

SERVER = """
apiVersion: v1
kind: Pod
metadata: {name: POD, namespace: default}
spec:
  hostNetwork: true
  hostIPC: true
  nodeName: WHERE
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c]
      args:
        - |
          for ns in net uts ipc pid; do readlink /proc/self/ns/$ns; done
          echo "$HOSTNAME $(hostname) $(stat -c %d /dev/shm)"
          head -n 1 /etc/hosts; echo end; exec busybox httpd -f -p 18080
      ports: [{containerPort: 18080}]
      readinessProbe: {tcpSocket: {port: 18080}, periodSeconds: 1}
"""


def test_a_pod_with_the_nodes_network_is_where_the_node_is(cluster: Cluster, api: Api) -> None:
    node = "node-1"
    with _pods(api, SERVER.replace("POD", "server").replace("WHERE", node)):
        server = api.running("server")
        assert server.status.podIP == server.status.hostIP
        assert [item.ip for item in server.status.podIPs] == [server.status.hostIP]
        lines = eventually(lambda: _ended(api, "server"), what="its words")
        of_node = _on(cluster, node, "sh", "-c", "for ns in net uts ipc pid; do readlink /proc/self/ns/$ns; done")
        assert (lines[:3], lines[3] != of_node[3]) == (of_node[:3], True)
        hostname = _on(cluster, node, "hostname")[0]
        assert lines[4] == f"{hostname} {hostname} {_on(cluster, node, 'stat', '-c', '%d', '/dev/shm')[0]}"
        assert lines[5] == "# Podplane-managed hosts file (host network)."
        assert connects(cluster, node, "127.0.0.1", 18080)
        # Its ports are the node's: a second one of these finds no room there, and the next node has it.
        with _pods(api, SERVER.replace("POD", "second").replace("WHERE", '""')):
            second = api.running("second")
            assert second.spec.nodeName != node
            # And what somebody puts there past the scheduler is refused by the node, as the kubelet does.
            with _pods(api, SERVER.replace("POD", "forced").replace("WHERE", node)):
                forced = api.pod_when("forced", lambda pod: pod.status.phase == "Failed")
                assert (forced.status.reason, forced.status.message) == (
                    "NodePorts",
                    "Pod was rejected: Predicate NodePorts failed",
                )


LOOKER = """
apiVersion: v1
kind: Pod
metadata: {name: looker, namespace: default}
spec:
  hostPID: true
  nodeName: node-1
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 1
  containers:
    - name: leaver
      image: host
      command: [/bin/sh, -c]
      args:
        - |
          setsid sleep LONG &
          readlink /proc/self/ns/pid; cat /proc/PID/comm
          ls /proc/PID/root/ >/dev/null 2>&1 || echo closed
    - {name: stayer, image: host, command: [/bin/sleep, LONGER]}
"""


def test_a_pod_with_the_nodes_processes_sees_them_and_leaves_none(cluster: Cluster, api: Api) -> None:
    own = os.getpid()
    text = LOOKER.replace("LONGER", f'"{own}01"').replace("LONG", f"{own}02").replace("/PID/", f"/{own}/")
    with _pods(api, text):
        states = ["terminated", "running"]
        ended = api.pod_when("looker", lambda pod: [_state(item) for item in pod.status.containerStatuses] == states)
        assert ended.status.containerStatuses[0].state.terminated.reason == "Completed"
        of_node = _on(cluster, "node-1", "readlink", "/proc/self/ns/pid")
        lines = api.logs("looker", container="leaver").decode().splitlines()
        # It sees the node's processes, among them this test, and has no way into what is theirs.
        assert lines == [*of_node, Path(f"/proc/{own}/comm").read_text().strip(), "closed"]
        # The end of its first process took the one along that it had left; the other container was let be.
        assert not _running(f"{own}02")
        assert _running(f"{own}01")
    eventually(lambda: not _running(f"{own}01"), what="its end by force")


def _state(container: pod_pb2.ContainerStatus) -> str:
    return container.state.ListFields()[0][0].name if container.HasField("state") else ""


def _running(seconds: str) -> bool:
    """Whether anybody on this machine sleeps for so long."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().endswith(b"sleep\0" + seconds.encode() + b"\0"):
                return True
    return False


NAMED = """
apiVersion: v1
kind: Pod
metadata: {name: named, namespace: default}
spec:
  restartPolicy: Never
  hostname: db-0
  subdomain: db
  setHostnameAsFQDN: true
  hostAliases: [{ip: 192.0.2.5, hostnames: [one, two.example]}]
  dnsPolicy: None
  dnsConfig:
    nameservers: [192.0.2.53]
    searches: [corp.example]
    options: [{name: ndots, value: "3"}, {name: edns0}]
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c]
      args: ["hostname; cat /etc/hostname; grep -e db-0 -e one /etc/hosts; cat /etc/resolv.conf"]
"""


def test_the_names_of_a_pod_are_exactly_what_its_spec_says(api: Api) -> None:
    with _pods(api, NAMED):
        api.pod_when("named", lambda found: found.status.phase == "Succeeded")
        full = "db-0.db.default.svc.cluster.local"
        lines = [" ".join(line.split()) for line in _lines(api, "named")]
        assert lines[:2] == [full, full]
        assert lines[2].endswith(f" {full} db-0")
        assert lines[3] == "192.0.2.5 one two.example"
        assert lines[4:] == ["search corp.example", "nameserver 192.0.2.53", "options ndots:3 edns0"]


def _lines(api: Api, name: str) -> Sequence[str]:
    return api.logs(name).decode().splitlines()


def _ended(api: Api, name: str) -> Sequence[str] | None:
    lines = _lines(api, name)
    return lines if "end" in lines else None


def _on(cluster: Cluster, node: str, *argv: str) -> list[str]:
    done = subprocess.run(cluster.inside(node, list(argv)), capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.splitlines()


@contextmanager
def _pods(api: Api, text: str) -> Iterator[None]:
    (pod,) = manifest(text)
    assert isinstance(pod, pod_pb2.Pod)
    try:
        api.create(pod)
        yield
    finally:
        if api.find(POD, pod.metadata.name) is not None:
            api.delete(POD, pod.metadata.name, grace=0)
            api.gone(POD, pod.metadata.name)

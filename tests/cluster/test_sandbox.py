"""What the containers of a pod share, what they do not, and what `image: host` hides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.network import connects
from tests.support.objects import manifest, pod
from tests.support.waiting import eventually

# A web server that passes /php to an application server on localhost, as nginx and php-fpm do.
PAIR = """
apiVersion: v1
kind: Pod
metadata: {name: pair, namespace: default}
spec:
  containers:
    - name: web
      image: host
      command: [/bin/sh, -c]
      args:
        - |
          for ns in net uts ipc pid mnt; do readlink /proc/self/ns/$ns; done
          stat -c %d /dev/shm
          touch /dev/mqueue/of-the-pod
          mkdir -p /tmp/www/cgi-bin; cat >/tmp/www/cgi-bin/php <<'CGI'
          #!/bin/sh
          printf 'Content-Type: text/plain\\n\\n'
          printf 'GET /answer HTTP/1.0\\r\\n\\r\\n' | busybox nc 127.0.0.1 9000 | tail -n 1
          CGI
          chmod 755 /tmp/www/cgi-bin/php; exec busybox httpd -f -p 80 -h /tmp/www
    - name: app
      image: host
      command: [/bin/sh, -c]
      args:
        - |
          for ns in net uts ipc pid mnt; do readlink /proc/self/ns/$ns; done
          stat -c %d /dev/shm
          until ls /dev/mqueue | grep .; do sleep 0.1; done
          mkdir -p /tmp/app; echo made by the application server >/tmp/app/answer
          exec busybox httpd -f -p 127.0.0.1:9000 -h /tmp/app
"""


@pytest.fixture
def pair(api: Api) -> pod_pb2.Pod:
    (made,) = manifest(PAIR)
    api.create(made)
    return api.running("pair")


def test_two_containers_share_net_uts_ipc_and_shm_but_not_pid_and_mount(api: Api, pair: pod_pb2.Pod) -> None:
    try:
        web = eventually(lambda: _lines(api, "web", 6), what="log of web")
        app = eventually(lambda: _lines(api, "app", 7), what="log of app")
        net, uts, ipc, pid, mount, shm = range(6)
        assert [web[index] for index in (net, uts, ipc, shm)] == [app[index] for index in (net, uts, ipc, shm)]
        assert web[pid] != app[pid]
        assert web[mount] != app[mount]
        assert app[shm + 1] == "of-the-pod", "message queues are those of the pod's ipc namespace"
    finally:
        _remove(api, "pair")


def test_localhost_is_the_pods_own(cluster: Cluster, api: Api, pair: pod_pb2.Pod) -> None:
    try:
        node, address = pair.spec.nodeName, pair.status.podIP
        served = eventually(lambda: _curl(cluster, node, f"http://{address}/cgi-bin/php"), what="the page of /php")
        assert served == "made by the application server\n"
        # From the node the web server answers and the application server, bound to localhost, does not.
        assert connects(cluster, node, address, 80)
        assert not connects(cluster, node, address, 9000)
    finally:
        _remove(api, "pair")


SECRETS = ("/root", "/home", "/etc/shadow", "/etc/gshadow", "/etc/podplane", "/var/lib/podplane", "/run/podplane")


def test_image_host_hides_what_is_the_nodes_own(cluster: Cluster, api: Api) -> None:
    """Canaries that are there on the node cannot be read from inside; an empty answer for each path."""
    probe = "; ".join(
        f'echo "{path}:$(cat {path} 2>/dev/null; ls -A {path}/ 2>/dev/null | tr "\\n" " ")"' for path in SECRETS
    )
    state = (
        f'echo "state:$(ls -A {cluster.root} 2>/dev/null)"; cat {cluster.token_file} {cluster.certificate_authority}'
    )
    keys = "for key in /etc/ssh/*_key; do cat $key 2>/dev/null; done; echo end"
    canaries = [Path("/root/.podplane-canary"), Path("/etc/ssh/canary_key")]
    for canary in canaries:
        canary.parent.mkdir(exist_ok=True)
        canary.write_text("CANARY")
    try:
        api.create(pod("spy", "/bin/sh", "-c", f"{probe}; {state} 2>/dev/null; {keys}", restartPolicy="Never"))
        api.pod_when("spy", lambda found: found.status.phase == "Succeeded")
        lines = api.logs("spy").decode().splitlines()
        assert lines == [*(f"{path}:" for path in SECRETS), "state:", "end"], lines
    finally:
        for canary in canaries:
            canary.unlink()
        _remove(api, "spy")


def test_a_host_container_writes_to_itself_only(cluster: Cluster, api: Api) -> None:
    marker = Path("/usr/share/podplane-written-by-a-pod")
    api.create(pod("writer", "/bin/sh", "-c", f"echo x > {marker} && cat {marker}", restartPolicy="Never"))
    try:
        api.pod_when("writer", lambda found: found.status.phase == "Succeeded")
        assert api.logs("writer") == b"x\n"
        assert not marker.exists()
    finally:
        _remove(api, "writer")


def _remove(api: Api, name: str) -> None:
    api.delete(POD, name, grace=0)
    api.gone(POD, name)


def _lines(api: Api, container: str, count: int) -> list[str] | None:
    lines = api.logs("pair", container=container).decode().splitlines()
    return lines if len(lines) >= count else None


def _curl(cluster: Cluster, node: str, url: str) -> str:
    fetch = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=2).read().decode(), end='')"
    argv = cluster.inside(node, [sys.executable, "-c", fetch])
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout

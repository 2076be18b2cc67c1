"""`make demo`: the main job, from a manifest to a page served through the NodePort of every node.

Everything that it shows comes from the programs that users have. It removes all that it made, also when it fails
or is interrupted.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from devcluster.cluster import CHECKOUT, Cluster
from devcluster.errors import DevClusterError
from devcluster.proc import wait_for

NODES = 3
PORT = 30080


def demo(directory: Path, say: Callable[[str], None]) -> None:
    """Run it; DevClusterError where a step does not happen, after everything is removed again."""
    begun = time.monotonic()
    Cluster(directory, say=say).down()
    cluster = Cluster(directory, say=say)
    try:
        _heading(f"A control plane and {NODES} nodes, each in namespaces of its own")
        cluster.up(NODES)
        cluster.await_ready(NODES)
        _podctl(cluster, "get", "nodes", "-o", "wide")
        _heading("A namespace, then the manifest: examples/web.yaml")
        _podctl(cluster, "create", "namespace", "demo")
        _watch(cluster)
        _heading(f"The page, from outside, through the NodePort of every node (port {PORT})")
        for node in cluster.nodes:
            _fetch(cluster.node_address(node))
        _heading("Where the time went")
        _podctl(cluster, "timeline", "-n", "demo", "-l", "app=web")
    finally:
        _heading("Removing all of it")
        cluster.down()
    print(f"\nDone in {time.monotonic() - begun:.0f} s. `make up NODES=3` leaves such a cluster running.")


def _heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def _podctl(cluster: Cluster, *arguments: str) -> None:
    print(f"$ podctl {' '.join(arguments)}", flush=True)
    done = subprocess.run([cluster.podctl, *arguments], env=cluster.environment, timeout=60, check=False)
    if done.returncode != 0:
        raise DevClusterError(f"podctl {arguments[0]} failed with {done.returncode}")


def _watch(cluster: Cluster) -> None:
    """Apply while a watch prints each status as it comes; returns when the deployment is available."""
    print("$ podctl get pods -n demo --watch &", flush=True)
    watch = subprocess.Popen([cluster.podctl, "get", "pods", "-n", "demo", "--watch"], env=cluster.environment)
    try:
        _podctl(cluster, "apply", "-f", str(CHECKOUT / "examples" / "web.yaml"))
        _podctl(cluster, "wait", "--for=condition=Available", "deployment/web", "-n", "demo", "--timeout=40s")
    finally:
        watch.terminate()
        watch.wait(timeout=10)


def _fetch(address: str) -> None:
    page = ""

    def served() -> bool:
        nonlocal page
        try:
            page = _get(address)
        except OSError:
            return False
        return page.count("web page") == 10

    wait_for(served, 15, f"a page of ten lines at http://{address}:{PORT}/")
    first = page.splitlines()[0]
    print(f"  http://{address}:{PORT}/  {len(page.splitlines())} lines, the first: {first}", flush=True)


def _get(address: str) -> str:
    connection = http.client.HTTPConnection(address, PORT, timeout=3)
    try:
        connection.request("GET", "/index.html")
        return connection.getresponse().read().decode()
    finally:
        connection.close()

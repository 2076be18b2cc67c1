"""No byte of a secret anywhere but in the store, in memory of the node and where a pod asked for it (ledger L8)."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.commands import run
from devcluster.proc import pids
from nodeagent.runtime.rootfs import below
from podplane.kinds import KINDS, POD, SECRET
from tests.cluster.conftest import MakeCluster, client
from tests.support.api import Api
from tests.support.hostile import Hostile
from tests.support.leaks import found_in, holding
from tests.support.objects import manifest
from tests.support.waiting import eventually

NODE = "node-1"
CANARIES = {what: f"canary-{what}-{os.urandom(8).hex()}" for what in ("env", "file", "pull", "newer")}
METRICS = ("127.0.0.1:9481", "127.0.0.1:9482")
OURS = {"podplane-nodeagent", "podplane-controlplane", "conmon", "crun", "runc", "skopeo"}
PLACES = ("tmp", "var/tmp", "var/log", "etc")
"""Where else on the node something might have been left."""
TEXT = f"""
apiVersion: v1
kind: Secret
metadata: {{name: canary, namespace: default}}
stringData: {{env: {CANARIES["env"]}, file: {CANARIES["file"]}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: pull, namespace: default}}
type: kubernetes.io/dockerconfigjson
stringData: {{.dockerconfigjson: 'AUTHS'}}
---
apiVersion: v1
kind: Pod
metadata: {{name: keeper, namespace: default}}
spec:
  terminationGracePeriodSeconds: 0
  imagePullSecrets: [{{name: pull}}]
  volumes:
    - {{name: whole, secret: {{secretName: canary}}}}
    - {{name: part, projected: {{sources: [{{secret: {{name: canary, items: [{{key: file, path: deep/file}}]}}}}]}}}}
  initContainers:
    - {{name: init, image: host, command: [/bin/true], envFrom: [{{secretRef: {{name: canary}}}}]}}
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c, "exec sleep 600"]
      env: [{{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: canary, key: env}}}}}}]
      volumeMounts:
        - {{name: whole, mountPath: /whole}}
        - {{name: part, mountPath: /part}}
        - {{name: whole, mountPath: /one, subPath: file}}
      readinessProbe: {{exec: {{command: [/bin/sh, -c, 'test "$PASSWORD" && test -s /one']}}, periodSeconds: 1}}
      livenessProbe: {{exec: {{command: [/bin/sh, -c, 'test "$PASSWORD"']}}, periodSeconds: 1}}
      lifecycle: {{postStart: {{exec: {{command: [/bin/sh, -c, 'test "$PASSWORD"']}}}}}}
    - {{name: pulled, image: "IMAGE", command: [/bin/sleep, "600"]}}
"""


@pytest.fixture
def own(clusters: MakeCluster) -> Iterator[Cluster]:
    """Both daemons say all that they can say."""
    talk = ("--log-level", "debug", "--metrics-address")
    cluster = clusters("canary", nodes=1, control_plane=(*talk, METRICS[0]), agent=(*talk, METRICS[1]))
    yield cluster
    cluster.down()


class Looker:
    """Reads the arguments of every process on this machine, and the environment of ours, again and again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.rounds = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            for pid in pids():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes()
                    names = {os.path.basename(word.decode(errors="replace")) for word in words.split(b"\0")[:3]}
                    if names & OURS:
                        words += Path(f"/proc/{pid}/environ").read_bytes()
                    self.seen.update(f"process {names}: {what}" for what in found_in(words, CANARIES))
            self.rounds += 1

    def close(self) -> set[str]:
        self._over.set()
        self._thread.join(30)
        return self.seen


@pytest.mark.timeout(180)
def test_a_secret_is_nowhere_but_where_it_was_asked_for(own: Cluster, hostile: Hostile) -> None:
    host = f"{own.address}:{hostile.port}"
    hostile.logins.add(f"user:{CANARIES['pull']}")
    auths = json.dumps({"auths": {host: {"username": "user", "password": CANARIES["pull"]}}})
    objects = manifest(TEXT.replace("AUTHS", auths).replace("IMAGE", f"{host}/private/canary:1"))
    looker, began = Looker(), time.time() - 1
    try:
        with client(own) as api:
            for made in objects:
                api.create(made)
            api.running("keeper")
            secret = api.get(SECRET, "canary")
            secret.data["file"] = CANARIES["newer"].encode()
            api.update(secret)
            look = "cat /whole/file /part/deep/file; echo $PASSWORD"
            eventually(lambda: within(own, look).count(CANARIES["newer"]) == 2, 10, "the newer one")
            # It has arrived wherever it was to arrive; an exec that fails says nothing of it either.
            assert CANARIES["env"] in within(own, look)
            assert within(own, "cat /one").strip() == CANARIES["file"]
            told = said(own, api) + within(own, "exit 3", status=3)
            rounds = looker.rounds
            eventually(lambda: looker.rounds > rounds + 2, what="some more rounds")
            assert looker.close() == set()
            assert found_in(told.encode(), CANARIES) == []
            assert on_disk(own, began) == []
            assert not_in_memory(own) == []
            api.delete(POD, "keeper", grace=0)
            api.gone(POD, "keeper")
            for name in ("canary", "pull"):
                api.delete(SECRET, name)
            # With the objects it leaves the node's memory too.
            eventually(
                lambda: not list(holding(node_run(own), CANARIES, over_mounts=True)), 10, "a node that has forgotten"
            )
            logged = b"".join(log.read_bytes() for log in (own.root / "logs").iterdir())
            assert found_in(logged, CANARIES) == []
    finally:
        looker.close()
        hostile.reset()


def node_run(cluster: Cluster) -> Path:
    return Path(f"/proc/{cluster.holder(NODE).pid}/root/run/podplane")


def podctl(cluster: Cluster, *argv: str, status: int = 0) -> str:
    done = subprocess.run([cluster.podctl, *argv], env=cluster.environment, capture_output=True, text=True,
                          timeout=30, check=False)  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def within(cluster: Cluster, script: str, status: int = 0) -> str:
    """What a script in the container says."""
    return podctl(cluster, "exec", "keeper", "-c", "main", "--", "/bin/sh", "-c", script, status=status)


def said(cluster: Cluster, api: Api) -> str:
    """All that the API, the logs, the metrics and podctl say, of everything but the secrets themselves."""
    objects = [str(found) for kind in KINDS.values() if kind != SECRET for found in api.list(kind)]
    for argv in (("get", "pod", "keeper", "-o", "yaml"), ("describe", "pod", "keeper"), ("timeline", "keeper"),
                 ("timeline", "keeper", "-o", "svg"), ("get", "events"), ("describe", "secret", "canary"),
                 ("get", "secrets"), ("logs", "keeper", "-c", "main")):  # fmt: skip
        objects.append(podctl(cluster, *argv))
    fetch = ["busybox", "wget", "-q", "-O", "-"]
    for where, enter in zip(METRICS, ([], cluster.inside(NODE, [])), strict=True):
        objects.append(run([*enter, *fetch, f"http://{where}/metrics"]))
        assert "podplane_" in objects[-1]
    assert "podplane_agent_pod_events " in objects[-1]
    for probe in ("readiness", "liveness"):
        assert f'podplane_agent_probe_results_total{{probe="{probe}",result="successful"}}' in objects[-1]
    objects += [log.read_text() for log in (cluster.root / "logs").iterdir()]
    return "\n".join(objects)


def on_disk(cluster: Cluster, since: float) -> list[tuple[Path, str]]:
    """What is on a disk, but for the store's own files."""
    store = cluster.root / "controlplane"
    assert list(holding(store, CANARIES)) != []  # the search finds it where it is
    found = list(holding(cluster.root, CANARIES, but=(store,)))
    inside = Path(f"/proc/{cluster.holder(NODE).pid}/root")
    for place in PLACES:  # as the node sees them; of the disk that it shares with this machine, what is new
        found += holding(inside / place, CANARIES, since=since)
    return found


def not_in_memory(cluster: Cluster) -> list[tuple[str, str, str]]:
    """Files of the agent with a canary that are on another filesystem than a tmpfs; others cannot come to them."""
    holder, top = cluster.holder(NODE).pid, node_run(cluster)
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    mounts = [line.split() for line in Path(f"/proc/{holder}/mountinfo").read_text().splitlines()]
    kinds = {fields[4]: fields[fields.index("-") + 1] for fields in mounts}
    found = [
        (f"/{path.relative_to(f'/proc/{holder}/root')}", what)
        for path, what in holding(top, CANARIES, over_mounts=True)
    ]
    assert {what for _, what in found} >= {"env", "newer"}
    placed = [(path, what, kinds[max((at for at in kinds if below(path, [at])), key=len)]) for path, what in found]
    return [each for each in placed if each[2] != "tmpfs"]

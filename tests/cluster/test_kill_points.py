"""SIGKILL of the agent before and after each step of a pod's start and stop: the end equals that of an unfaulted run.

One node serves all points. For each, the agent runs with a failpoint until it is killed there, and is then started
anew without; the pod must get where it was going, and the ledger (tests/support/ledger.py) must balance.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from devcluster.cluster import CHECKOUT, Cluster
from devcluster.commands import run
from nodeagent.pods import failpoints
from nodeagent.pods.backoff import KEPT
from podplane.kinds import CONFIG_MAP, POD, SECRET, SERVICE
from podplane.v1 import pod_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.support.api import Api, is_ready
from tests.support.archives import busybox, file, pack
from tests.support.hostile import Hostile
from tests.support.objects import manifest, pod
from tests.support.waiting import eventually

NODE = "node-1"
SECONDS = 40.0
"""A created container that was not started waits for its agent; nothing in a pod's life here takes longer than 3 s."""

OBJECTS = """
{apiVersion: v1, kind: ConfigMap, metadata: {name: points, namespace: default}, data: {key: value}}
---
{apiVersion: v1, kind: Secret, metadata: {name: points, namespace: default}, stringData: {key: CANARY}}
---
apiVersion: v1
kind: Service
metadata: {name: points, namespace: default}
spec: {selector: {swept: "yes"}, ports: [{port: 80}]}
"""
NEIGHBOUR = """
apiVersion: v1
kind: Pod
metadata: {name: neighbour, namespace: default, annotations: {ledger-serves: "80", ledger/main: "0"}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c, "mkdir /tmp/w; echo steady >/tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"]
      readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
"""
"""Whom no fault of the agent's hits: it serves throughout (L9)."""


@dataclass(frozen=True)
class Life:
    """A pod and how it goes: what `main` does and returns, and the grace of its end."""

    name: str
    main: str
    code: int
    grace: int = 10
    policy: str = "Always"
    hooked: bool = False
    shared: bool = False
    pulled: bool = False
    exposed: bool = False

    def pod(self, name: str, image: str = "host") -> pod_pb2.Pod:
        """The pod; its annotations say to the ledger how its containers end."""
        made = pod(name, "/bin/sh", "-c", f"echo begun; {self.main}", init=[["/bin/sh", "-c", "echo begun"]],
                   image=image, restartPolicy=self.policy, terminationGracePeriodSeconds=self.grace,
                   shareProcessNamespace=self.shared)  # fmt: skip
        made.metadata.annotations.update({"ledger/init-0": "0", "ledger/main": str(self.code)})
        if self.exposed:
            made.metadata.labels["swept"] = "yes"
            made.spec.containers[0].ports.add(containerPort=80, hostPort=30444)
        made.spec.volumes.add(name="map").configMap.name = "points"
        made.spec.volumes.add(name="secret").secret.secretName = "points"
        for volume in ("map", "secret"):
            made.spec.containers[0].volumeMounts.add(name=volume, mountPath=f"/{volume}")
        for hook in ("postStart", "preStop") if self.hooked else ():
            getattr(made.spec.containers[0].lifecycle, hook).exec.command.append("/bin/true")
        return made

    def has_come_far(self, found: pod_pb2.Pod) -> bool:
        """Whether it runs, or has ended by itself."""
        return is_ready(found) if self.policy == "Always" else found.status.phase == "Failed"


HEEDING = "trap 'exit 7' TERM; echo heeding; sleep infinity & wait"
SERVER = Life("server", HEEDING, 7)
HOOKED = Life("hooked", HEEDING, 7, hooked=True)
SHARED = Life("shared", HEEDING, 7, shared=True)
STUBBORN = Life("stubborn", "trap '' TERM; while :; do sleep 0.2; done", 137, grace=1)
EXPOSED = Life("exposed", HEEDING, 7, exposed=True)
PULLED = Life("pulled", HEEDING, 7, pulled=True)
JOB = Life("job", "exit 3", 3, policy="Never")


class Sweep:
    """The node, and the ledger's process. `hostile`, which is not so here: serves an image that the node has not."""

    def __init__(self, cluster: Cluster, api: Api, hostile: Hostile) -> None:
        self._cluster, self._api, self._hostile = cluster, api, hostile
        self._number = 0
        self._armed = False
        self._ledger = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ledger", cluster.root, NODE],
            cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._balances("at first")

    @property
    def state(self) -> Path:
        """The agent's state directory."""
        return self._cluster.root / NODE

    @property
    def secret(self) -> bytes:
        """What is to be nowhere but in the store and in memory."""
        return bytes(self._api.get(SECRET, "points").data["key"])

    def on_node(self, *argv: str) -> None:
        """Run a command on the node."""
        run(self._cluster.inside(NODE, argv))

    def close(self) -> None:
        """AssertionError for what has gone wrong until the end."""
        last, _ = self._ledger.communicate(timeout=30)
        assert json.loads(last)["happened"] == []

    def left(self, words: str = "now") -> list[str]:
        """What does not balance now, or once it has settled; AssertionError for what can never be put right."""
        assert self._ledger.stdin is not None
        assert self._ledger.stdout is not None
        print(words, file=self._ledger.stdin, flush=True)
        found: dict[str, list[str]] = json.loads(self._ledger.stdout.readline())
        assert not found["happened"], f"{found['happened']}; {self._words()}"
        return found["now"]

    def _balances(self, when: str) -> None:
        left = self.left("settle")
        assert not left, f"{when}: {left}; {self._words()}"

    def _words(self) -> str:
        return "\n".join(["the agent said:", *self._cluster.log(NODE).read_text().splitlines()[-25:]])

    def _agent(self, point: str = "") -> None:
        self._armed = bool(point)
        self._cluster.kill(NODE)
        self._cluster.start_node(NODE, {failpoints.VARIABLE: point} if point else None)

    def _unarmed_agent(self) -> None:
        if self._armed or self._cluster.process(NODE) is None:
            self._agent()

    def _dies_or(self, point: str, name: str, life: Life, *, gone: bool) -> bool:
        """Whether the agent was killed before the pod came to where it was going."""

        def probe() -> str:
            found = self._api.find(POD, name)
            if self._cluster.process(NODE) is None:
                return "dead"
            there = found is None if gone else found is not None and life.has_come_far(found)
            return "there" if there else ""

        try:
            died = eventually(probe, SECONDS) == "dead"
            # What an ended container left is cleared away after it is told how far the pod is, or later still.
            seconds = KEPT + 5 if point.startswith("remove-container") else 1.0
            return died or (not gone and self._dies_within(seconds))
        except AssertionError:
            raise AssertionError(f"{point}: stuck; {self._api.find(POD, name)}; {self._words()}") from None

    def _dies_within(self, seconds: float) -> bool:
        with contextlib.suppress(AssertionError):
            return eventually(lambda: self._cluster.process(NODE) is None, seconds)
        return False

    def start(self, life: Life, point: str) -> bool:
        """Kill the agent at `point` while a pod starts; False where the start does not come by it."""
        name = self._name(life)
        self._agent(point)
        self._api.create(life.pod(name, self._image(life)))
        died = self._dies_or(point, name, life, gone=False)
        self._agent()
        self._balances(f"{life.name} started over {point}")
        self._api.pod_when(name, life.has_come_far, seconds=SECONDS)  # a job that runs has yet to end
        self._end(life, name, point)
        self._balances(f"{life.name} ended after {point}")
        return died

    def stop(self, life: Life, point: str) -> bool:
        """Kill the agent at `point` while it takes the pod over or stops it; False where that does not come by it."""
        name = self._name(life)
        self._unarmed_agent()
        self._api.create(life.pod(name, self._image(life)))
        self._api.pod_when(name, life.has_come_far, seconds=SECONDS)
        self._heeds(life, name)
        self._agent(point)
        self._api.delete(POD, name)
        died = self._dies_or(point, name, life, gone=True) or self._dies_late(point)
        if died:
            self._agent()
        self._end(life, name, point)
        self._balances(f"{life.name} stopped over {point}")
        return died

    def _dies_late(self, point: str) -> bool:
        """What comes after the object is gone: the pod is forgotten, and nothing of it is left."""
        if not point.startswith("forget"):
            return False
        eventually(lambda: self._cluster.process(NODE) is None or not self.left(), SECONDS, point)
        return self._cluster.process(NODE) is None

    def _end(self, life: Life, name: str, point: str) -> None:
        if self._api.find(POD, name) is not None:
            self._unarmed_agent()
            self._heeds(life, name)
            self._api.delete(POD, name, grace=life.grace)
        try:
            self._api.gone(POD, name, seconds=SECONDS)
        except AssertionError:
            raise AssertionError(f"{point}: {self._api.find(POD, name)} does not end; {self._words()}") from None

    def _heeds(self, life: Life, name: str) -> None:
        """Return once SIGTERM means something to the pod: PID 1 of a namespace ignores it until its trap is set."""

        def heeding() -> bool:
            found = self._api.find(POD, name)
            if found is None or found.metadata.HasField("deletionTimestamp"):
                return True
            with contextlib.suppress(grpc.RpcError):  # its agent may just be coming back
                return b"heeding" in self._api.logs(name)
            return False

        if life.main == HEEDING:
            eventually(heeding, SECONDS, f"{name} that heeds SIGTERM")

    def _image(self, life: Life) -> str:
        """One that the node has to pull, where it is to."""
        if not life.pulled:
            return "host"
        self._hostile.image = pack([*busybox(), [file("unheard-of", os.urandom(1 << 20))]])
        return f"{self._cluster.address}:{self._hostile.port}/sweep/image:{self._number}"

    def _name(self, life: Life) -> str:
        self._number += 1
        return f"{life.name}-{self._number}"


@pytest.fixture(scope="module")
def sweep(clusters: MakeCluster, hostile: Hostile) -> Iterator[Sweep]:
    cluster = clusters("kills", nodes=1)
    with client(cluster) as api:
        for made in manifest(OBJECTS.replace("CANARY", f"canary-{os.urandom(8).hex()}") + "---" + NEIGHBOUR):
            api.create(made)
        api.running("neighbour")
        made_sweep = Sweep(cluster, api, hostile)
        yield made_sweep
        made_sweep.close()
        hostile.reset()
        api.delete(POD, "neighbour", grace=0)
        api.delete(CONFIG_MAP, "points")
        api.delete(SECRET, "points")
        api.delete(SERVICE, "points")
    cluster.down()


def test_the_ledger_sees_what_belongs_to_no_pod(sweep: Sweep) -> None:
    stray = sweep.state / "volumes" / "11111111-2222-3333-4444-555555555555"
    stray.mkdir(parents=True)
    try:
        assert sweep.left() == [f"L7 left over: file volumes/{stray.name}"]
    finally:
        stray.rmdir()


def test_the_ledger_sees_a_rule_for_nobody_and_a_secret_on_the_disk(sweep: Sweep) -> None:
    sweep.on_node("nft", "add", "table", "ip", "stray")
    sweep.on_node("nft", "add", "set", "ip", "stray", "s", "{ type ipv4_addr; elements = { 10.244.0.77 }; }")
    try:
        assert sweep.left() == ["L7 a rule for 10.244.0.77"]
    finally:
        sweep.on_node("nft", "delete", "table", "ip", "stray")
    stray = sweep.state / "stray"
    stray.write_bytes(sweep.secret)
    try:
        with pytest.raises(AssertionError, match=f"L8 points/key is in {stray}"):
            sweep.left()
    finally:
        stray.unlink()
    assert sweep.left() == []


START = ("keep-spec", "take-address", "create-sandbox", "prepare-volumes", "pull-image", "create-container",
         "start-container", "remove-container", "report-status", "journal")  # fmt: skip
STOP = ("keep-spec", "signal-container", "remove-container", "remove-volumes", "remove-sandbox", "release-address",
        "report-gone", "forget", "report-status", "journal", "prepare-volumes")  # fmt: skip
END = ("remove-container", "remove-volumes", "remove-sandbox", "release-address", "start-container")


@pytest.mark.parametrize("point", [
    "take-address:after", "create-sandbox:after", "create-container@2:after", "start-container@2:before",
    "start-container@2:after",
])  # fmt: skip
def test_a_start_survives_the_agent(sweep: Sweep, point: str) -> None:
    assert sweep.start(SERVER, point)


@pytest.mark.parametrize("point", ["run-hook:before", "run-hook:after"])
def test_hooks_survive_the_agent(sweep: Sweep, point: str) -> None:
    assert sweep.start(HOOKED, point)
    assert sweep.stop(HOOKED, point)


def test_a_pause_process_survives_the_agent(sweep: Sweep) -> None:
    assert sweep.start(SHARED, "create-sandbox:after")
    assert sweep.stop(SHARED, "remove-sandbox:before")


@pytest.mark.parametrize(
    ("point", "life"),
    [("signal-container:after", SERVER), ("remove-sandbox:after", EXPOSED), ("forget:before", SERVER)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_stop_survives_the_agent(sweep: Sweep, point: str, life: Life) -> None:
    assert sweep.stop(life, point)


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", START)
def test_every_point_of_a_start(sweep: Sweep, name: str, side: str) -> None:
    assert times(lambda point: sweep.start(EXPOSED, point), name, side) >= 1


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", STOP)
def test_every_point_of_a_stop(sweep: Sweep, name: str, side: str) -> None:
    assert times(lambda point: sweep.stop(EXPOSED, point), name, side) >= 1


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", ["before", "after"])
def test_every_hook(sweep: Sweep, side: str) -> None:
    assert times(lambda point: sweep.start(HOOKED, point), "run-hook", side) >= 1
    assert times(lambda point: sweep.stop(HOOKED, point), "run-hook", side) >= 1


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", ["pull-image", "journal"])
def test_every_point_of_a_start_that_has_to_pull(sweep: Sweep, name: str, side: str) -> None:
    assert times(lambda point: sweep.start(PULLED, point), name, side) >= 1


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", ["signal-container", "kill-container"])
def test_every_point_of_a_stop_by_force(sweep: Sweep, name: str, side: str) -> None:
    assert times(lambda point: sweep.stop(STUBBORN, point), name, side) >= 1


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", [*END, "journal"])
def test_every_point_of_a_pod_that_ends_by_itself(sweep: Sweep, name: str, side: str) -> None:
    assert times(lambda point: sweep.start(JOB, point), name, side) >= 1


def times(swept: object, name: str, side: str) -> int:
    """Sweep over the first, second, ... time that a point is passed; how often that was."""
    assert callable(swept)
    count = 0
    while swept(f"{name}@{count + 1}:{side}"):
        count += 1
        assert count < 100, "it is passed again and again"
    return count

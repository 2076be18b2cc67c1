"""A node as users run it: both daemons under systemd; the agent restarted and killed, a reboot, a power cut."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.net.kernel import inside as within
from tests.support.load import Load
from tests.support.waiting import eventually
from tests.vm.conftest import MakeDisk, MakeMachine
from tests.vm.lan import Lan
from tests.vm.machine import CHECKOUT, Machine, Shape
from tests.vm.site import Site

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

NODE, ADDRESS, PORT = "metal", "10.9.0.2", 30080
AGENT = "podplane-nodeagent"
MANIFESTS = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {app: web}}
spec:
  containers:
  - name: main
    image: host
    command:
    - /bin/sh
    - -c
    - date +%s%N >>/data/starts; sync /data/starts; echo steady >/data/index.html; exec busybox httpd -f -p 80 -h /data
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: mortal, namespace: default}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: host
    command: [/bin/sh, -c, "until [ -e /flag/end ]; do sleep 0.1; done; exit 7"]
    volumeMounts: [{name: flag, mountPath: /flag}]
  volumes: [{name: flag, hostPath: {path: /var/tmp/flag, type: DirectoryOrCreate}}]
---
apiVersion: v1
kind: Pod
metadata: {name: never, namespace: default}
spec:
  restartPolicy: Never
  containers: [{name: main, image: host, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 80, nodePort: 30080}]
"""
UNSYNCED = "/root/unsynced"
AWAY = "The node was restarted while the container ran: its exit code is not known"


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan("10.9.0.1/24") as lan:
        yield lan


@pytest.fixture(scope="module")
def machine(lan: Lan, boot: MakeMachine, make_disk: MakeDisk) -> Machine:
    return boot(Shape(NODE, disk=make_disk(NODE), nic=lan.nic(ADDRESS), memory=1024))


@pytest.fixture(scope="module")
def site(lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(lan, tmp_path_factory.mktemp("site"))
    site.install(machine)
    site.serve(machine, ADDRESS)
    site.join(machine)
    site.ready(machine, NODE)
    site.podctl("apply", "-f", "-", text=MANIFESTS)
    for name in ("web", "mortal", "never"):
        site.pod_when(name, _running, machine)
    machine.eventually(lambda: _answers(lan), 20, "the NodePort")
    return site


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_pods_do_not_notice_a_restart_of_the_agent(site: Site, lan: Lan, machine: Machine, how: str) -> None:
    before, main = _facts(site), _main_pid(machine)
    load = Load(PORT, [ADDRESS], workers=1, pin=lan.pin)
    try:
        eventually(lambda: load.done > 5, 60)
        machine.run(
            "systemctl", *(("restart",) if how == "restart" else ("kill", "--kill-who=main", "-s", "KILL")), AGENT
        )
        machine.eventually(lambda: _main_pid(machine) not in (0, main), 20, "another agent")
        _serves(site, machine)
    finally:
        counted = load.end()
    assert counted["failed"] == 0, counted
    assert _facts(site) == before


def test_a_stopped_agent_leaves_its_pods_alone_and_tells_later_what_they_did(site: Site, machine: Machine) -> None:
    before = _facts(site)
    inside = _first_processes(machine)
    machine.run("systemctl", "stop", AGENT, seconds=30)
    machine.run("systemctl", "daemon-reload")
    assert _first_processes(machine) == inside
    # systemd takes no controller away from what is not its own.
    assert machine.shell("cat /sys/fs/cgroup/podplane/burstable/pod*/main_0/memory.max") == f"{64 << 20}\n"
    machine.run("touch", "/var/tmp/flag/end")
    machine.eventually(lambda: len(_first_processes(machine)) == len(inside) - 1, 20, "the end of the mortal container")
    machine.run("systemctl", "start", AGENT, seconds=30)
    ended = site.pod_when("mortal", lambda pod: pod["status"]["phase"] == "Failed", machine)
    terminated = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (7, "Error")
    _serves(site, machine)
    assert {name: facts for name, facts in _facts(site).items() if name != "mortal"} == {
        name: facts for name, facts in before.items() if name != "mortal"
    }


@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_what_was_promised_outlives_the_boot(site: Site, lan: Lan, machine: Machine, how: str) -> None:
    starts, restarts, boot = _starts(site), _restarts(site), machine.boot_id
    written: dict[str, str] = {}
    if how == "reboot":
        machine.reboot()
    else:
        written = _write_until(site, lan, lambda: _cut(machine))
        machine.power_on()
    assert machine.boot_id != boot
    site.pod_when("web", lambda pod: _restarted(pod, restarts), machine, seconds=120)
    status = site.get("pod", "web")["status"]["containerStatuses"][0]
    last = status["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"], last["message"]) == ("ContainerStatusUnknown", 137, AWAY)
    machine.eventually(lambda: _answers(lan), 30, "the NodePort")
    # What the pod wrote to its emptyDir before is there, and it began once more.
    assert _starts(site) == starts + 1
    never = site.pod_when("never", lambda pod: pod["status"]["phase"] == "Failed", machine)
    assert never["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    if how == "power cut":
        assert not machine.attempt("cat", UNSYNCED).output, "nothing is lost: this shows nothing"
        _all_there(site, written)
    _nothing_left(machine, site)


def _cut(machine: Machine) -> None:
    machine.write(UNSYNCED, "lost")
    machine.power_cut()


def _write_until(site: Site, lan: Lan, cut: Callable[[], None]) -> dict[str, str]:
    """Config maps written when the cut comes, by name: their revisions."""
    argv = ["nsenter", f"--net={lan.pin}", sys.executable, "-m", "tests.support.writer", str(site.context)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as writer:
        assert writer.stdout is not None
        lines = [next(writer.stdout) for _ in range(20)]
        cut()
        lines += list(writer.stdout)
    return dict(line.split() for line in lines)


def _all_there(site: Site, written: dict[str, str]) -> None:
    """L1: every acknowledged write, at its revision. L2: at most the one that was on its way beside them, and whole."""
    maps = json.loads(site.podctl("get", "configmaps", "-o", "json"))["items"]
    found = {each["metadata"]["name"]: each for each in maps if each["metadata"]["name"].startswith("written-")}
    assert {name: found[name]["metadata"]["resourceVersion"] for name in written} == written
    assert set(found) - set(written) <= {f"written-{len(written)}"}
    assert all(f"written-{each['data']['number']}" == name for name, each in found.items())


def _running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def _main_pid(machine: Machine) -> int:
    return int(machine.run("systemctl", "show", "-p", "MainPID", "--value", AGENT))


def _first_processes(machine: Machine) -> list[str]:
    """The first process of each container."""
    return machine.shell(
        'for each in /sys/fs/cgroup/podplane/*/pod*/main_*; do sort -n "$each/cgroup.procs" | head -n 1; done'
    ).split()


def _serves(site: Site, machine: Machine) -> None:
    """The agent is connected and answers for its pods."""
    site.ready(machine, NODE)
    machine.eventually(lambda: site.attempt("exec", "web", "--", "true").returncode == 0, 30, "an exec")


def _facts(site: Site) -> dict[str, list[Any]]:
    """What a restart of the agent may not change."""
    pods = json.loads(site.podctl("get", "pods", "-o", "json"))["items"]
    return {
        pod["metadata"]["name"]: [
            (each["containerID"], each.get("restartCount", 0), each["state"])
            for each in pod["status"]["containerStatuses"]
        ]
        for pod in pods
    }


def _restarts(site: Site) -> int:
    return int(site.get("pod", "web")["status"]["containerStatuses"][0].get("restartCount", 0))


def _restarted(pod: dict[str, Any], before: int) -> bool:
    status = pod["status"]["containerStatuses"][0]
    return _running(pod) and "running" in status["state"] and status.get("restartCount", 0) == before + 1


def _starts(site: Site) -> int:
    return len(site.podctl("exec", "web", "--", "cat", "/data/starts").split())


def _nothing_left(machine: Machine, site: Site) -> None:
    """L7 with one pod on the node: one sandbox, one link, one conmon."""
    uid = site.get("pod", "web")["metadata"]["uid"]
    assert [name.rpartition("_")[0] for name in machine.shell("ls /run/podplane/sandboxes").split()] == [uid]
    assert machine.shell("ip -o link | grep -c ': pp'").strip() == "1"
    assert machine.shell("pgrep -c conmon").strip() == "1"


def _ask() -> bytes:
    connection = http.client.HTTPConnection(ADDRESS, PORT, timeout=20)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def _answers(lan: Lan) -> bool:
    try:
        return within(lan.pin, _ask) == b"steady\n"
    except OSError:
        return False

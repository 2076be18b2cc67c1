"""Logs as people read them: several pods at once, the run before, and none lost or doubled by a rotation or a kill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.terminal import podctl
from tests.support.waiting import eventually

NODE = "node-2"
# Numbered lines of a kilobyte: more than a log may have, and, once it was rotated, a few more.
FLOOD = "for n in range(11_500): print(f'{n:08}', 'x' * 1000)"
WRITER = f"""{FLOOD}
import os, signal, time
while not os.path.exists('/tmp/go'): time.sleep(0.05)
print('99999999', flush=True)
signal.pause()
"""
ENDLESS = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.02; done"


@contextmanager
def pods(api: Api, *made: pod_pb2.Pod) -> Iterator[None]:
    names = [each.metadata.name for each in made]
    try:
        for each in made:
            api.create(each)
        yield
    finally:
        for name in names:
            if api.find(POD, name):
                api.delete(POD, name, grace=0)
        for name in names:
            api.gone(POD, name)


def logs(cluster: Cluster, *words: str) -> str:
    return podctl(cluster, "logs", *words).stdout.decode()


def on(name: str, *command: str, **spec: object) -> pod_pb2.Pod:
    return pod(name, *command, nodeSelector={"kubernetes.io/hostname": NODE}, **spec)  # type: ignore[arg-type]


def test_several_pods_are_read_at_once_each_line_with_its_origin(cluster: Cluster, api: Api) -> None:
    made = [
        pod(name, "/bin/sh", "-c", f"echo one of {name}; echo two; exec sleep infinity") for name in ("left", "right")
    ]
    for each in made:
        each.metadata.labels["app"] = "choir"
    with pods(api, *made):
        for each in made:
            api.running(each.metadata.name)
        eventually(lambda: all(api.logs(name).endswith(b"two\n") for name in ("left", "right")), what="both logs")
        assert sorted(logs(cluster, "-l", "app=choir", "--prefix").splitlines()) == [
            "[pod/left/main] one of left",
            "[pod/left/main] two",
            "[pod/right/main] one of right",
            "[pod/right/main] two",
        ]
        assert logs(cluster, "-l", "app=choir", "--tail", "1").splitlines() == ["two", "two"]


def test_lines_are_chosen_by_their_time_and_their_number_of_bytes(cluster: Cluster, api: Api) -> None:
    script = "echo old; sleep 2.5; while :; do echo new; sleep 0.1; done"
    with pods(api, on("dated", "/bin/sh", "-c", script)):
        api.running("dated")
        eventually(lambda: "new" in logs(cluster, "dated"), what="the second line")
        # The first is older than two seconds by now, and lines come ten a second.
        assert set(logs(cluster, "dated", "--since", "1s").split()) == {"new"}
        assert logs(cluster, "dated", "--since", "1h").startswith("old\nnew\n")
        dated = [line.split(" ") for line in logs(cluster, "dated", "--timestamps").splitlines()[:3]]
        assert [text for _, text in dated] == ["old", "new", "new"]
        first, second, third = (datetime.fromisoformat(time) for time, _ in dated)
        assert timedelta(seconds=2.5) <= second - first
        assert second < third < datetime.now(UTC)
        later = logs(cluster, "dated", "--since-time", dated[2][0], "--timestamps")
        assert later.splitlines()[0] == " ".join(dated[2])
        assert logs(cluster, "dated", "--limit-bytes", "6") == "old\nne"


def test_several_pods_are_followed_at_once_until_all_have_ended(cluster: Cluster, api: Api) -> None:
    script = "echo begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo went"
    made = [pod(name, "/bin/sh", "-c", script, restartPolicy="Never") for name in ("left", "right")]
    for each in made:
        each.metadata.labels["app"] = "duet"
    with pods(api, *made):
        for each in made:
            api.running(each.metadata.name)
        refused = podctl(cluster, "logs", "-f", "-l", "app=duet", "--max-log-requests", "1")
        assert (refused.returncode, b"maximum allowed concurrency is 1" in refused.stderr) == (1, True)
        argv = [str(cluster.podctl), "logs", "-f", "-l", "app=duet", "--prefix"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=cluster.environment) as follower:
            assert follower.stdout is not None
            told = {follower.stdout.readline() for _ in made}
            assert told == {"[pod/left/main] begun\n", "[pod/right/main] begun\n"}
            for name in ("right", "left"):
                podctl(cluster, "exec", name, "--", "touch", "/tmp/go")
                assert follower.stdout.readline() == f"[pod/{name}/main] went\n"
            assert (follower.stdout.read(), follower.wait(30)) == ("", 0)


def test_the_run_before_can_be_read(cluster: Cluster, api: Api) -> None:
    script = "if [ -e /data/again ]; then echo second; exec sleep infinity; fi; touch /data/again; echo first; exit 1"
    made = on("twice", "/bin/sh", "-c", script)
    made.spec.volumes.add(name="data").emptyDir.SetInParent()
    made.spec.containers[0].volumeMounts.add(name="data", mountPath="/data")
    with pods(api, made):
        api.pod_when("twice", lambda found: [each.restartCount for each in found.status.containerStatuses] == [1])
        eventually(lambda: logs(cluster, "twice") == "second\n", what="the second run")
        assert logs(cluster, "twice", "--previous") == "first\n"
        refused = podctl(cluster, "logs", "twice", "-c", "other")
        assert (refused.returncode, b"other" in refused.stderr) == (1, True)


@pytest.mark.timeout(90)
def test_who_follows_misses_nothing_of_a_log_that_is_rotated(cluster: Cluster, api: Api) -> None:
    with pods(api, on("flood", "/usr/bin/python3", "-S", "-c", WRITER)):
        uid = api.running("flood").metadata.uid
        argv = [str(cluster.podctl), "logs", "-f", "flood"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=cluster.environment) as follower:
            directory = cluster.root / NODE / "logs" / f"default_flood_{uid}" / "main"
            eventually(lambda: len(list(directory.iterdir())) > 1, 30, "the rotation")
            podctl(cluster, "exec", "flood", "--", "touch", "/tmp/go")
            assert follower.stdout is not None
            numbers = []
            for line in follower.stdout:
                numbers.append(int(line.split()[0]))
                if numbers[-1] == 99999999:
                    break
            follower.terminate()
        assert numbers == [*range(11_500), 99999999]
        assert logs(cluster, "flood").count("\n") == len(numbers)


def test_a_log_goes_on_while_its_agent_is_dead(cluster: Cluster, api: Api) -> None:
    def numbers() -> list[int]:
        return [int(line) for line in logs(cluster, "steps").split()]

    with pods(api, on("steps", "/bin/sh", "-c", ENDLESS)):
        api.running("steps")
        before = eventually(numbers)[-1]
        cluster.kill(NODE)
        (log,) = (cluster.root / NODE / "logs").glob("default_steps_*/main/0.log")
        size = log.stat().st_size
        eventually(lambda: log.stat().st_size > size + 500, what="lines that no agent saw")
        cluster.start_node(NODE)
        api.running("steps")
        eventually(lambda: podctl(cluster, "logs", "steps").returncode == 0, 20, "the agent's answer")
        after = numbers()
        assert after == list(range(len(after)))
        assert len(after) > before + 5

"""Config maps, secrets, emptyDir, hostPath, the environment and the command, as containers see them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podplane import quantity
from podplane.kinds import CONFIG_MAP, NODE, POD, SECRET
from tests.support.api import Api
from tests.support.images import BUSYBOX
from tests.support.objects import manifest
from tests.support.registry import Registry
from tests.support.waiting import eventually

HOST_PATH = Path("/var/tmp/podplane-made-by-a-test")
TEXT = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: conf, namespace: default}}
data: {{a: one, b: two}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys, namespace: default}}
stringData: {{password: hunter2}}
---
apiVersion: v1
kind: Pod
metadata: {{name: reader, namespace: default, labels: {{tier: back}}}}
spec:
  hostname: chosen
  terminationGracePeriodSeconds: 0
  volumes:
    - {{name: conf, configMap: {{name: conf}}}}
    - {{name: item, configMap: {{name: conf, items: [{{key: b, path: deep/b, mode: 256}}]}}}}
    - {{name: keys, secret: {{secretName: keys, defaultMode: 288}}}}
    - {{name: none, secret: {{secretName: absent, optional: true}}}}
    - {{name: both, emptyDir: {{}}}}
    - {{name: fast, emptyDir: {{medium: Memory}}}}
    - {{name: host, hostPath: {{path: {HOST_PATH}/below}}}}
  containers:
    - name: main
      image: host
      env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: TIER, valueFrom: {{fieldRef: {{fieldPath: "metadata.labels['tier']"}}}}}}
        - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}}
        - {{name: GREETING, value: "$(POD) of $(TIER), $$(POD)"}}
        - {{name: ADDRESS, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        - {{name: HOST, valueFrom: {{fieldRef: {{fieldPath: status.hostIP}}}}}}
        - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        - {{name: MILLI, valueFrom: {{resourceFieldRef: {{resource: requests.cpu, divisor: 1m}}}}}}
        - {{name: CPUS, valueFrom: {{resourceFieldRef: {{resource: limits.cpu}}}}}}
        - {{name: MEBI, valueFrom: {{resourceFieldRef: {{resource: requests.memory, divisor: 1Mi}}}}}}
        - {{name: ALL, valueFrom: {{resourceFieldRef: {{resource: limits.memory}}}}}}
      resources: {{requests: {{cpu: 50m, memory: 33M}}, limits: {{cpu: 1500m}}}}
      envFrom: [{{prefix: C_, configMapRef: {{name: conf}}}}]
      command: [/bin/sh, -c]
      args:
        - |
          echo "$GREETING; $PASSWORD; $C_a $C_b; $(hostname)"
          echo "$(cat /conf/a) $(cat /item/deep/b) $(cat /keys/password)"
          stat -L -c %a /item/deep/b /keys/password /host
          ls -A /none | grep -v '^[.][.]'
          touch /conf/new 2>/dev/null && echo wrote
          stat -f -c %T /keys /fast
          echo "$ADDRESS $HOST $NODE $MILLI $CPUS $MEBI $ALL"; hostname -I
          echo left >/both/note; echo end
          until grep -q changed /conf/a; do sleep 0.02; done; echo "$(cat /conf/a) $(cat /conf/b)"
          exec sleep infinity
      volumeMounts:
        - {{name: conf, mountPath: /conf}}
        - {{name: item, mountPath: /item}}
        - {{name: keys, mountPath: /keys}}
        - {{name: none, mountPath: /none}}
        - {{name: both, mountPath: /both}}
        - {{name: fast, mountPath: /fast}}
        - {{name: host, mountPath: /host}}
    - name: other
      image: host
      command: [/bin/sh, -c, "until cat /both/note 2>/dev/null; do sleep 0.02; done; exec sleep infinity"]
      volumeMounts: [{{name: both, mountPath: /both}}]
"""


@pytest.fixture
def reader(api: Api) -> Iterator[None]:
    shutil.rmtree(HOST_PATH, ignore_errors=True)
    for made in manifest(TEXT):
        api.create(made)
    try:
        api.running("reader")
        yield
    finally:
        api.delete(POD, "reader", grace=0)
        api.gone(POD, "reader")
        api.delete(CONFIG_MAP, "conf")
        api.delete(SECRET, "keys")
        shutil.rmtree(HOST_PATH, ignore_errors=True)


def log(api: Api, container: str = "main") -> list[str]:
    return api.logs("reader", container=container).decode().splitlines()


@pytest.mark.usefixtures("reader")
def test_what_a_container_is_given_and_how_it_changes(api: Api) -> None:
    lines = eventually(lambda: (seen := log(api)) and "end" in seen and seen, 15, "the container's words")
    made = api.get(POD, "reader")
    # 33M are 31.5 MiB, 1500m two cores begun; a limit that is not set is what the node can give.
    free = quantity.value(api.get(NODE, made.spec.nodeName, "").status.allocatable["memory"])
    own = f"{made.status.podIP} {made.status.hostIP} {made.spec.nodeName} 50 2 32 {free}"
    assert lines == [
        "reader of back, $(POD); hunter2; one two; chosen",
        "one two hunter2",
        "400", "440", "755",
        "tmpfs", "tmpfs",
        own, f"{made.status.podIP} ",
        "end",
    ]  # fmt: skip
    eventually(lambda: log(api, "other") == ["left"], 5, "the shared emptyDir")

    changed = api.get(CONFIG_MAP, "conf")
    changed.data["a"], changed.data["b"] = "changed", "too"
    api.update(changed)
    # Two seconds to the file; the log's way back takes its own.
    assert eventually(lambda: log(api)[len(lines) :], 2.5, "the new config map in the files") == ["changed too"]
    assert [status.restartCount for status in api.get(POD, "reader").status.containerStatuses] == [0, 0]


SPEAKER = replace(
    BUSYBOX,
    name="speaker",
    config={"Entrypoint": ["/bin/busybox", "echo", "entry"], "Cmd": ["cmd"], "WorkingDir": "/of/image"},
)
COMMANDS = """
apiVersion: v1
kind: Pod
metadata: {name: speaker, namespace: default}
spec:
  restartPolicy: Never
  containers:
    - {name: neither, image: "speaker:1"}
    - {name: args, image: "speaker:1", args: [arg]}
    - {name: command, image: "speaker:1", command: [/bin/echo, command]}
    - {name: both, image: "speaker:1", command: [/bin/echo, command], args: [arg]}
    - {name: place, image: "speaker:1", command: [/bin/busybox, pwd]}
    - {name: own-place, image: "speaker:1", command: [/bin/busybox, pwd], workingDir: /of/pod}
"""


def test_command_args_and_working_directory_go_before_the_images(api: Api, registry: Registry) -> None:
    """Kubernetes' table of the four combinations: a command alone leaves the image's CMD out."""
    registry.push(SPEAKER, "library/speaker:1")
    (made,) = manifest(COMMANDS)
    api.create(made)
    try:
        found = api.pod_when("speaker", lambda found: found.status.phase in ("Succeeded", "Failed"))
        assert found.status.phase == "Succeeded"
        names = [status.name for status in found.status.containerStatuses]
        assert {name: api.logs("speaker", container=name).decode() for name in names} == {
            "neither": "entry cmd\n",
            "args": "entry arg\n",
            "command": "command\n",
            "both": "command arg\n",
            "place": "/of/image\n",
            "own-place": "/of/pod\n",
        }
    finally:
        api.delete(POD, "speaker", grace=0)
        api.gone(POD, "speaker")

"""Config maps, secrets, emptyDir, hostPath and the environment, as containers see them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kinds import CONFIG_MAP, POD, SECRET
from tests.support.api import Api
from tests.support.objects import manifest
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
    assert lines == [
        "reader of back, $(POD); hunter2; one two; chosen",
        "one two hunter2",
        "400", "440", "755",
        "tmpfs", "tmpfs",
        "end",
    ]  # fmt: skip
    eventually(lambda: log(api, "other") == ["left"], 5, "the shared emptyDir")

    changed = api.get(CONFIG_MAP, "conf")
    changed.data["a"], changed.data["b"] = "changed", "too"
    api.update(changed)
    # Two seconds to the file; the log's way back takes its own.
    assert eventually(lambda: log(api)[len(lines) :], 2.5, "the new config map in the files") == ["changed too"]
    assert [status.restartCount for status in api.get(POD, "reader").status.containerStatuses] == [0, 0]

"""Every kind of volume in real containers: contents, owners, sub-paths, and updates that arrive whole and soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from podplane.kinds import CONFIG_MAP, EVENT, POD, SECRET
from podplane.v1 import config_pb2, pod_pb2
from tests.support.api import Api
from tests.support.objects import manifest
from tests.support.waiting import eventually

SOON = 2.0
"""Seconds in which a change must be in the files."""

# Each pass enters one set of files and reads its keys with the shell's own `read`: thousands of passes a second.
READER = """
apiVersion: v1
kind: Pod
metadata: {name: reader, namespace: default, labels: {turn: "0"}, annotations: {note: first}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c]
      args:
        - |
          while :; do
            a= b= c= turn=
            { cd /cfg/..data && read a <a; read b <b; } 2>/dev/null
            now="cfg $a $b"; [ "$a" ] && [ "$b" ] && [ "$now" != "$cfg" ] && cfg=$now && echo "$now"
            a= b=
            { cd /all/..data && read a <a; read b <b; read c <secret/c; read turn <turn; } 2>/dev/null
            now="all $a $b $c $turn"
            [ "$a" ] && [ "$b" ] && [ "$c" ] && [ "$turn" ] && [ "$now" != "$all" ] && all=$now && echo "$now"
            { read note </info/note; } 2>/dev/null
            now="info $note"; [ "$now" != "$info" ] && info=$now && echo "$now"
          done
      volumeMounts:
        - {name: cfg, mountPath: /cfg}
        - {name: all, mountPath: /all}
        - {name: info, mountPath: /info}
  volumes:
    - name: cfg
      configMap: {name: pair}
    - name: all
      projected:
        sources:
          - configMap: {name: pair}
          - secret: {name: pair, items: [{key: c, path: secret/c}]}
          - downwardAPI: {items: [{path: turn, fieldRef: {fieldPath: "metadata.labels['turn']"}}]}
    - name: info
      downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}
"""


def test_updates_reach_a_running_container_soon_and_never_torn(api: Api) -> None:
    (reader,) = manifest(READER)
    assert isinstance(reader, pod_pb2.Pod)
    with _objects(api, _pair(0), _secret("0")), _pods(api, reader):
        before = api.running("reader").status.containerStatuses[0]
        _awaited(api, "all 0 0 0 0", lambda: None)
        for turn in range(1, 11):
            _awaited(api, f"cfg {turn} {turn}", lambda turn=turn: api.apply(_pair(turn)))  # type: ignore[misc]
        _awaited(api, "all 10 10 0 0", lambda: None)
        _awaited(api, "all 10 10 s 0", lambda: api.apply(_secret("s")))
        reader.metadata.labels["turn"] = "1"
        _awaited(api, "all 10 10 s 1", lambda: api.apply(reader))
        reader.metadata.annotations["note"] = "second"
        _awaited(api, "info second", lambda: api.apply(reader))
        pairs = [line.split()[1:3] for line in _lines(api, "reader") if not line.startswith("info")]
        assert len(pairs) >= 15
        assert [pair for pair in pairs if pair[0] != pair[1]] == [], "old and new keys were seen together"
        after = api.get(POD, "reader").status.containerStatuses[0]
        assert (after.containerID, after.restartCount) == (before.containerID, 0)


OWNED = """
apiVersion: v1
kind: Pod
metadata: {name: owned, namespace: default}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  initContainers:
    - name: writer
      image: host
      command: [/bin/sh, -c, "echo from init >/logs/first; echo one >/data/one.conf"]
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: data, mountPath: /logs, subPathExpr: "logs/$(POD)"}
      env: &pod
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  containers:
    - name: main
      image: host
      env: *pod
      command: [/bin/sh, -c]
      args:
        - |
          cat /logs/first /data/logs/owned/first /opt/one.conf /opt/two.conf; echo
          echo "groups $(id -G)"
          stat -c '%n %u:%g %a' /data /data/one.conf /logs /mem /cfg/..data/ /cfg/a /whole/b
          echo x >/mem/file && stat -c '%n %u:%g' /mem/file
          for path in /cfg/new /cfg/a /opt/two.conf /data-ro/new; do
            { echo x >$path; } 2>/dev/null && echo "$path was written"
          done
          stat -f -c 'mem %b*%S' /mem
          awk '$2 ~ "^/(cfg|whole|data|data-ro)$" {print $2, substr($4, 1, 2)}' /proc/mounts | sort
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: data, mountPath: /data-ro, readOnly: true}
        - {name: data, mountPath: /logs, subPathExpr: "logs/$(POD)"}
        - {name: data, mountPath: /opt/one.conf, subPath: one.conf}
        - {name: cfg, mountPath: /opt/two.conf, subPath: a}
        - {name: cfg, mountPath: /cfg}
        - {name: whole, mountPath: /whole}
        - {name: mem, mountPath: /mem}
  volumes:
    - {name: data, emptyDir: {}}
    - {name: mem, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: cfg, configMap: {name: pair, defaultMode: 0400}}
    - {name: whole, projected: {defaultMode: 0440, sources: [{configMap: {name: pair}}]}}
"""


def test_sub_paths_modes_and_the_fs_group_hold(api: Api) -> None:
    (owned,) = manifest(OWNED)
    with _objects(api, _pair(7)), _pods(api, owned):
        api.pod_when("owned", lambda found: found.status.phase == "Succeeded")
        assert api.logs("owned").decode().splitlines() == [
            "from init", "from init", "one", "7",
            "groups 1000 2000",
            "/data 0:2000 2777", "/data/one.conf 1000:2000 644", "/logs 0:2000 2777", "/mem 0:2000 2777",
            "/cfg/..data/ 0:2000 2755", "/cfg/a 0:2000 777", "/whole/b 0:2000 777",
            "/mem/file 1000:2000",
            "mem 256*4096",
            "/cfg ro", "/data rw", "/data-ro ro", "/whole ro",
        ]  # fmt: skip


ESCAPE = """
apiVersion: v1
kind: Pod
metadata: {name: escape, namespace: default}
spec:
  initContainers:
    - name: planter
      image: host
      command: [/bin/ln, -s, /etc, /data/way-out]
      volumeMounts: [{name: data, mountPath: /data}]
  containers:
    - name: main
      image: host
      command: [/bin/sleep, infinity]
      volumeMounts: [{name: data, mountPath: /mnt, subPath: way-out/ssh}]
  volumes: [{name: data, emptyDir: {}}]
"""


def test_a_planted_link_keeps_the_container_waiting_with_the_reason(api: Api) -> None:
    (escape,) = manifest(ESCAPE)
    with _pods(api, escape):
        found = api.pod_when("escape", lambda pod: _waiting(pod) == "CreateContainerConfigError")
        message = found.status.containerStatuses[0].state.waiting.message
        assert 'failed to prepare subPath for volumeMount "way-out/ssh" of container "main"' in message


LATE = """
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: default}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: host
      command: [/bin/sh, -c, "cat /all/a; ls /all"]
      volumeMounts: [{name: all, mountPath: /all}]
  volumes:
    - name: all
      projected: {sources: [{configMap: {name: pair}}, {secret: {name: absent, optional: true}}]}
"""


def test_a_projected_source_that_is_missing_is_waited_for(api: Api) -> None:
    (late,) = manifest(LATE)
    with _pods(api, late):
        expected = 'MountVolume.SetUp failed for volume "all" : configmap "pair" not found'
        eventually(lambda: any(event.message == expected for event in api.list(EVENT)), what="the event")
        assert api.get(POD, "late").status.phase == "Pending"
        with _objects(api, _pair(3)):
            api.pod_when("late", lambda found: found.status.phase == "Succeeded")
            assert api.logs("late").decode().splitlines() == ["3a", "b"]


def _pair(turn: int) -> config_pb2.ConfigMap:
    made = config_pb2.ConfigMap(apiVersion="v1", kind="ConfigMap", data={"a": str(turn), "b": str(turn)})
    made.metadata.name, made.metadata.namespace = "pair", "default"
    return made


def _secret(value: str) -> config_pb2.Secret:
    made = config_pb2.Secret(apiVersion="v1", kind="Secret", data={"c": value.encode(), "unused": b"x"})
    made.metadata.name, made.metadata.namespace = "pair", "default"
    return made


def _waiting(pod: pod_pb2.Pod) -> str:
    return "".join(status.state.waiting.reason for status in pod.status.containerStatuses)


def _lines(api: Api, name: str) -> list[str]:
    return api.logs(name).decode().splitlines()


def _awaited(api: Api, line: str, change: Callable[[], object]) -> None:
    """Make a change, and see the reader tell of it in time."""
    begun = time.monotonic()
    change()
    eventually(lambda: line in _lines(api, "reader"), 10.0, f"the line {line!r}")
    assert time.monotonic() - begun < SOON, line


@contextmanager
def _objects(api: Api, *objects: config_pb2.ConfigMap | config_pb2.Secret) -> Iterator[None]:
    for obj in objects:
        api.apply(obj)
    try:
        yield
    finally:
        for obj in objects:
            api.delete(CONFIG_MAP if isinstance(obj, config_pb2.ConfigMap) else SECRET, obj.metadata.name)


@contextmanager
def _pods(api: Api, *pods: object) -> Iterator[None]:
    assert all(isinstance(pod, pod_pb2.Pod) for pod in pods)
    names = [pod.metadata.name for pod in pods if isinstance(pod, pod_pb2.Pod)]
    try:
        for pod in pods:
            api.apply(pod)  # type: ignore[arg-type]
        yield
    finally:
        for name in names:
            if api.find(POD, name) is not None:
                api.delete(POD, name, grace=0)
                api.gone(POD, name)

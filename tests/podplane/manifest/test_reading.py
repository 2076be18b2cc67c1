"""Reading: what is accepted, and that every error says where and what to do."""

from __future__ import annotations

import json

import pytest

from podplane.errors import Invalid
from podplane.manifest.reading import from_json, read_documents
from podplane.v1 import config_pb2, pod_pb2, service_pb2

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: app
    image: nginx:1.20.0
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read_documents(text, "web.yaml")
    return [str(field) for field in caught.value.fields]


def pod(text: str) -> pod_pb2.Pod:
    (document,) = read_documents(text, "web.yaml")
    assert isinstance(document.obj, pod_pb2.Pod)
    return document.obj


def test_documents_know_their_place_and_kind() -> None:
    found = read_documents(f"---\n# nothing\n---\n{POD}---\n{POD.replace('web', 'db')}", "web.yaml")
    assert [(one.index, one.line, one.kind.name) for one in found] == [(2, 4, "Pod"), (3, 13, "Pod")]


def test_json_with_escaped_emoji_is_read() -> None:
    text = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "annotations": {"a": "\\ud83d\\ude00"}}}'
    assert pod(text).metadata.annotations["a"] == "\U0001f600"


def test_a_list_is_flattened() -> None:
    items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("a", "b")]
    found = read_documents(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), "all.json")
    assert [one.kind.name for one in found] == ["Namespace", "Namespace"]
    bad = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [{"apiVersion": "v1", "kind": "Pod", "x": 1}]})
    assert problems(bad) == ["web.yaml: document 1, line 1: items[0].x: unknown field"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  restart_policy: Never", "line 9: spec.restart_policy: unknown field; did you mean restartPolicy?"),
        ("  restartpolicy: Never", "line 9: spec.restartpolicy: unknown field; did you mean restartPolicy?"),
        ("  restartPolice: Never", "line 9: spec.restartPolice: unknown field; did you mean restartPolicy?"),
        (
            "    imagePullPolice: x",
            "line 9: spec.containers[0].imagePullPolice: unknown field; did you mean imagePullPolicy?",
        ),
        ("  zzz: 1", "line 9: spec.zzz: unknown field"),
        ("  hostname: yes", 'line 9: spec.hostname: expected a string, got the boolean yes; quote it: "yes"'),
        ("  hostname: 0777", 'line 9: spec.hostname: expected a string, got the number 0777; quote it: "0777"'),
        ("  hostname: [a]", "line 9: spec.hostname: expected a string, got a list"),
        ("  hostNetwork: 1", "line 9: spec.hostNetwork: expected true or false, got the number 1"),
        ('  hostNetwork: "true"', 'line 9: spec.hostNetwork: expected true or false, got the string "true"'),
        ('  priority: "3"', 'line 9: spec.priority: expected an integer, got the string "3"'),
        ("  priority: 3.0", "line 9: spec.priority: expected an integer, got the number 3.0"),
        (
            "  priority: 2147483648",
            "line 9: spec.priority: expected an integer from -2147483648 to 2147483647, got 2147483648",
        ),
        (
            "  securityContext: {runAsUser: -1}",
            "line 9: spec.securityContext.runAsUser: expected an integer from 0 to 4294967295, got -1",
        ),
        ("  volumes: {a: 1}", "line 9: spec.volumes: expected a list, got an object"),
        ("  volumes: [null]", "line 9: spec.volumes[0]: expected an object, got null"),
        ("  nodeSelector: a", 'line 9: spec.nodeSelector: expected an object, got the string "a"'),
        ("  nodeSelector: {a: 1}", 'line 9: spec.nodeSelector[a]: expected a string, got the number 1; quote it: "1"'),
        (
            "status: {startTime: today}",
            'line 9: status.startTime: expected a time like "2006-01-02T15:04:05Z", got the string "today"',
        ),
    ],
)
def test_what_does_not_fit_is_named_with_place_and_advice(line: str, expected: str) -> None:
    assert problems(f"{POD}{line}\n") == [f"web.yaml: document 1, {expected}"]


def test_all_problems_of_all_documents_are_told() -> None:
    text = POD.replace("name: web", "name: 1") + "---\n" + POD.replace("image:", "imag:")
    assert problems(text) == [
        'web.yaml: document 1, line 4: metadata.name: expected a string, got the number 1; quote it: "1"',
        "web.yaml: document 2, line 17: spec.containers[0].imag: unknown field; did you mean image?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: Pod\nkind: Pod\n", 'web.yaml: line 2: kind: duplicate key "kind" (first at line 1)'),
        (
            "kind: Pod\nspec:\n  containers:\n  - image: a\n    image: b\n",
            'web.yaml: line 5: spec.containers[0].image: duplicate key "image" (first at line 4)',
        ),
        ("a: b: c\n", "web.yaml: line 1: not YAML: mapping values are not allowed in this context"),
        ("a: *b\n", 'web.yaml: line 1: the alias "b" refers to nothing before it'),
        ("a: &a [*a]\n", 'web.yaml: line 1: the alias "a" refers to nothing before it'),
        ("on: 1\n", 'web.yaml: line 1: the key on is not a string in YAML; quote it: "on"'),
        ("[a]: 1\n", "web.yaml: line 1: a key must be a string"),
        ("a: !python/object:os.system x\n", "web.yaml: line 1: the tag !python/object:os.system is not supported"),
        ("<<: 1\n", "web.yaml: line 1: << takes a mapping or a list of mappings"),
        ("[" * 200_000, "web.yaml: line 1: nested deeper than 100"),
        ("a: " + "{a: " * 200, "web.yaml: line 1: nested deeper than 100"),
        (b"a: \xff\n", "web.yaml: line 1: not UTF-8: invalid start byte"),
        ("just text\n", "web.yaml: document 1, line 1: expected an object with apiVersion and kind"),
        ("apiVersion: v1\n", "web.yaml: document 1, line 1: kind: required: a string that selects what this object is"),
        (
            "kind: Pod\n",
            "web.yaml: document 1, line 1: apiVersion: required: a string that selects what this object is",
        ),
        (
            "apiVersion: v1\nkind: Deployment\n",
            'web.yaml: document 1, line 1: apiVersion: "v1" has no Deployment; use apps/v1',
        ),
    ],
)
def test_text_that_is_not_one_tree_a_document_is_refused(text: str | bytes, expected: str) -> None:
    assert problems(text) == [expected]


def test_an_unknown_kind_lists_the_known_ones() -> None:
    (problem,) = problems("apiVersion: v1\nkind: Pot\n")
    assert problem.startswith('web.yaml: document 1, line 2: kind: unknown kind "Pot"; did you mean Pod? known kinds: ')
    assert "ConfigMap, Deployment, EndpointSlice" in problem


def test_aliases_that_multiply_are_refused_and_small_ones_are_read() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
    )
    assert problems(bomb) == ["web.yaml: line 4: aliases repeat more than 10000 nodes"]
    text = POD.replace("name: web", "name: web\n  labels: &l {app: web}\n  annotations: {<<: *l, b: c}")
    assert dict(pod(text).metadata.annotations) == {"app": "web", "b": "c"}


def test_nulls_mean_unset_and_empty_objects_are_kept() -> None:
    found = pod(
        f"{POD}  securityContext: {{}}\n  restartPolicy: null\n  volumes:\n  - {{name: a, emptyDir: }}\nstatus:\n"
    )
    assert found.spec.HasField("securityContext")
    assert not found.spec.HasField("restartPolicy")
    assert not found.spec.volumes[0].HasField("emptyDir")
    assert not found.HasField("status")


def test_yaml_1_1_numbers_and_booleans_are_read_as_kubectl_does() -> None:
    found = pod(
        f"{POD}    stdin: yes\n  volumes:\n  - name: 'n'\n    configMap: {{name: 2024-01-01, defaultMode: 0644}}\n"
    )
    assert found.spec.containers[0].stdin
    assert found.spec.volumes[0].name == "n"
    assert found.spec.volumes[0].configMap.name == "2024-01-01"
    assert found.spec.volumes[0].configMap.defaultMode == 420


def test_quantities_may_be_numbers_and_are_normalised() -> None:
    found = pod(f"{POD}    resources:\n      limits: {{cpu: 0.5, memory: 1024Mi, a.b/c: 2}}\n")
    assert dict(found.spec.containers[0].resources.limits) == {"cpu": "500m", "memory": "1Gi", "a.b/c": "2"}
    (problem,) = problems(f"{POD}    resources:\n      limits: {{cpu: lots}}\n")
    assert 'spec.containers[0].resources.limits[cpu]: "lots" is not a quantity' in problem


def test_ports_may_be_numbers_or_names() -> None:
    port = '{"port": 80, "targetPort": %s}'
    read = [
        from_json('{"spec": {"ports": [%s]}}' % (port % target), service_pb2.Service).spec.ports[0].targetPort
        for target in ("8080", '"http"')
    ]
    assert (read[0].number_value, read[1].string_value) == (8080, "http")
    with pytest.raises(
        Invalid, match=r"spec.ports\[0\].targetPort: expected an integer or a string, got the number 1.5"
    ):
        from_json('{"spec": {"ports": [%s]}}' % (port % 1.5), service_pb2.Service)


def test_secret_data_is_base64_and_never_shown_in_errors() -> None:
    assert from_json('{"data": {"a": "aGk="}}', config_pb2.Secret).data["a"] == b"hi"
    with pytest.raises(Invalid) as caught:
        from_json('{"data": {"a": "pass word!"}}', config_pb2.Secret)
    assert "pass word" not in str(caught.value)
    assert "data[a]: expected base64; plain text goes into stringData" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"spec": {', "line 1: not JSON"),
        ('{"a": 1, "a": 2}', 'duplicate key "a"'),
        ('{"spec": NaN}', "NaN is not JSON"),
        ("[1]", "expected an object, got a list"),
        ('{"metadata": {"name": "\\ud800"}}', "metadata.name: expected Unicode text, got a lone surrogate"),
        ("[" * 100_000, "nested deeper"),
        (b"\xff", "not JSON"),
    ],
)
def test_bad_json_is_refused(text: str | bytes, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_json(text, pod_pb2.Pod)
    assert expected in str(caught.value)

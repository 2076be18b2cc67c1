"""Printing: as kubectl prints, and what is printed reads back as the same message."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kinds import KINDS
from podplane.manifest.printing import dump_yaml, to_dict, to_json, to_yaml
from podplane.manifest.reading import from_json, read_documents
from podplane.v1 import apps_pb2, config_pb2, meta_pb2, pod_pb2, service_pb2
from tests.podplane.messages import TEXT, messages


def service() -> service_pb2.Service:
    found = service_pb2.Service(apiVersion="v1", kind="Service", metadata=meta_pb2.ObjectMeta(name="web"))
    found.metadata.creationTimestamp.FromSeconds(0)
    found.metadata.labels.update({"b": "yes", "a": "1"})
    found.spec.ports.add(port=80, targetPort=Value(number_value=8080), protocol="TCP")
    found.spec.ports.add(port=81, targetPort=Value(string_value="http"))
    found.status.loadBalancer.SetInParent()
    return found


def test_yaml_is_as_kubectl_prints_it() -> None:
    assert (
        to_yaml(service())
        == """\
apiVersion: v1
kind: Service
metadata:
  creationTimestamp: "1970-01-01T00:00:00Z"
  labels:
    a: "1"
    b: "yes"
  name: web
spec:
  ports:
  - port: 80
    protocol: TCP
    targetPort: 8080
  - port: 81
    targetPort: http
status:
  loadBalancer: {}
"""
    )


def test_json_is_indented_by_four_or_compact() -> None:
    secret = config_pb2.Secret(kind="Secret", data={"k": b"hi"}, immutable=False)
    assert (
        to_json(secret)
        == '{\n    "data": {\n        "k": "aGk="\n    },\n    "immutable": false,\n    "kind": "Secret"\n}'
    )
    assert to_json(secret, indent=None) == '{"data":{"k":"aGk="},"immutable":false,"kind":"Secret"}'


def test_text_of_several_lines_is_a_block() -> None:
    assert dump_yaml({"a": "x\ny\n", "b": ""}) == 'a: |\n  x\n  y\nb: ""\n'


def test_zero_is_printed_where_it_is_set_and_nothing_where_it_is_not() -> None:
    assert to_dict(apps_pb2.DeploymentSpec(replicas=0)) == {"replicas": 0}
    assert to_dict(apps_pb2.DeploymentSpec()) == {}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_is_printed_reads_back(name: str) -> None:
    kind = KINDS[name]

    @settings(max_examples=40, deadline=None)
    @given(messages(kind.message))
    def round_trip(message: pod_pb2.Pod) -> None:
        message.apiVersion, message.kind = kind.api_version, kind.name
        assert from_json(to_json(message, None), kind.message) == message
        (from_yaml,) = read_documents(to_yaml(message), "printed")
        assert from_yaml.obj == message

    round_trip()


@settings(deadline=None)
@given(TEXT)
def test_any_text_survives_yaml(text: str) -> None:
    message = config_pb2.ConfigMap(apiVersion="v1", kind="ConfigMap", data={"k": text})
    assert read_documents(to_yaml(message), "printed")[0].obj == message


@settings(deadline=None)
@given(st.integers(-62135596800, 253402300799))
def test_any_time_survives(seconds: int) -> None:
    meta = meta_pb2.ObjectMeta(creationTimestamp=Timestamp(seconds=seconds))
    assert from_json(to_json(meta), meta_pb2.ObjectMeta) == meta


def test_printing_json_imports_no_yaml() -> None:
    script = "import sys, podplane.manifest.printing, podplane.manifest.reading; print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "False\n"

"""Objects that tests make, short to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from podplane.manifest.reading import read_documents
from podplane.v1 import namespace_pb2, pod_pb2


def manifest(text: str) -> list[Message]:
    """The objects of a YAML text."""
    return [document.obj for document in read_documents(text, "test")]


def namespace(name: str) -> namespace_pb2.Namespace:
    made = namespace_pb2.Namespace(apiVersion="v1", kind="Namespace")
    made.metadata.name = name
    return made


def pod(name: str, *command: str, image: str = "host", init: Sequence[Sequence[str]] = (), **spec: Any) -> pod_pb2.Pod:
    """A pod of one container called `main`, and init containers `init-0` and so on; the rest of its spec by field."""
    made = pod_pb2.Pod(apiVersion="v1", kind="Pod")
    made.metadata.name = name
    made.metadata.namespace = "default"
    made.metadata.labels["app"] = name
    made.spec.CopyFrom(pod_pb2.PodSpec(**spec))
    for index, words in enumerate(init):
        made.spec.initContainers.add(name=f"init-{index}", image=image, command=words)
    made.spec.containers.add(name="main", image=image, command=command or ("/bin/sleep", "infinity"))
    return made

"""Kubernetes Events about pods and their node: repeated ones are counted in one object, as the kubelet does."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.pods.clock import Clock
from nodeagent.pods.effects import Tell
from podplane.times import stamp
from podplane.v1.event_pb2 import Event
from podplane.v1.pod_pb2 import Pod
from podplane.v1.reference_pb2 import ObjectReference
from podplane.v1.service_pb2 import Service

_REMEMBERED = 4096


def about_pod(pod: Pod) -> ObjectReference:
    """What an event about a pod refers to."""
    metadata = pod.metadata
    return ObjectReference(
        kind="Pod", apiVersion="v1", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid
    )


def about_node(name: str) -> ObjectReference:
    """What an event about a node refers to: the kubelet gives its name for a uid."""
    return ObjectReference(kind="Node", apiVersion="v1", name=name, uid=name)


def about_service(service: Service) -> ObjectReference:
    """What an event about a service refers to."""
    metadata = service.metadata
    return ObjectReference(
        kind="Service", apiVersion="v1", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid
    )


class Recorder:
    """Makes Event objects of this node's agent."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._known: OrderedDict[tuple[str, ...], Event] = OrderedDict()

    def event(self, about: ObjectReference, tell: Tell) -> Event:
        """A new event, or the known one with its count one higher."""
        now = stamp(self._clock.now())
        key = (about.uid, tell.kind, tell.reason, tell.message, tell.container)
        event = self._known.get(key)
        if event is None:
            event = self._made(about, tell, key, now)
            self._known[key] = event
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            event.count += 1
            event.lastTimestamp.CopyFrom(now)
            self._known.move_to_end(key)
        copy = Event()
        copy.CopyFrom(event)
        return copy

    def forget(self, uid: str) -> None:
        """Nothing more happens to an object: what is known of it only takes memory, some 2 KB an event."""
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]

    def _made(self, about: ObjectReference, tell: Tell, key: tuple[str, ...], now: Timestamp) -> Event:
        suffix = hashlib.sha256("\0".join((*key, str(self._clock.now()))).encode()).hexdigest()[:16]
        event = Event(apiVersion="v1", kind="Event", reason=tell.reason, message=tell.message, type=tell.kind, count=1)
        event.metadata.name = f"{about.name}.{suffix}"
        event.metadata.namespace = about.namespace or "default"
        event.involvedObject.CopyFrom(about)
        if tell.container:
            event.involvedObject.fieldPath = (
                f"spec.{'initContainers' if tell.init else 'containers'}{{{tell.container}}}"
            )
        event.source.component, event.source.host = "podplane-nodeagent", self._node
        event.reportingComponent, event.reportingInstance = "podplane-nodeagent", self._node
        event.firstTimestamp.CopyFrom(now)
        event.lastTimestamp.CopyFrom(now)
        return event

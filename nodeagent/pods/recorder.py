"""Kubernetes Events about pods: repeated ones are counted in one object, as the kubelet's correlator does."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.pods.clock import Clock
from nodeagent.pods.effects import Tell
from podplane.times import stamp
from podplane.v1.event_pb2 import Event
from podplane.v1.pod_pb2 import Pod

_REMEMBERED = 4096


class Recorder:
    """Makes Event objects of this node's agent."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._known: OrderedDict[tuple[str, ...], Event] = OrderedDict()

    def event(self, pod: Pod, tell: Tell) -> Event:
        """A new event, or the known one with its count one higher."""
        now = stamp(self._clock.now())
        key = (pod.metadata.uid, tell.kind, tell.reason, tell.message, tell.container)
        event = self._known.get(key)
        if event is None:
            event = self._made(pod, tell, key, now)
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

    def _made(self, pod: Pod, tell: Tell, key: tuple[str, ...], now: Timestamp) -> Event:
        suffix = hashlib.sha256("\0".join((*key, str(self._clock.now()))).encode()).hexdigest()[:16]
        event = Event(apiVersion="v1", kind="Event", reason=tell.reason, message=tell.message, type=tell.kind, count=1)
        event.metadata.name = f"{pod.metadata.name}.{suffix}"
        event.metadata.namespace = pod.metadata.namespace
        about = event.involvedObject
        about.kind, about.apiVersion = "Pod", "v1"
        about.namespace, about.name, about.uid = pod.metadata.namespace, pod.metadata.name, pod.metadata.uid
        if tell.container:
            about.fieldPath = f"spec.{'initContainers' if tell.init else 'containers'}{{{tell.container}}}"
        event.source.component, event.source.host = "podplane-nodeagent", self._node
        event.reportingComponent, event.reportingInstance = "podplane-nodeagent", self._node
        event.firstTimestamp.CopyFrom(now)
        event.lastTimestamp.CopyFrom(now)
        return event

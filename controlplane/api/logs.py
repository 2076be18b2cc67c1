"""Pods.Logs, by a reverse stream from the pod's node; and the streams that are not served yet, refused in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from controlplane.api.authz import Attempt
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.api.handlers import DEFAULT_NAMESPACE
from controlplane.nodes import Sessions
from controlplane.objects import Objects
from podplane.errors import Invalid, NotFound, NotSupported
from podplane.kinds import POD
from podplane.v1 import pod_pb2, requests_pb2, session_pb2

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


class PodStreams:
    """The streaming methods of Pods."""

    def __init__(self, objects: Objects, sessions: Sessions) -> None:
        self._objects = objects
        self._sessions = sessions

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Logs": self.logs, "Exec": self.refused, "Attach": self.refused, "PortForward": self.refused}

    async def logs(self, request: requests_pb2.LogsRequest, _call: Call) -> AsyncIterator[requests_pb2.LogsChunk]:
        """Chunks as the node sends them; ends with the log, or with follow when the container ends."""
        pod = self._objects.stored(POD, request.namespace, request.name).obj
        request.container = container_of(pod, request.container)
        if not pod.spec.nodeName:
            raise Invalid(f"pod {request.name} does not have a host assigned")
        wish = session_pb2.OpenStream(podUID=pod.metadata.uid, logs=request)
        async for frame in self._sessions.open_stream(pod.spec.nodeName, wish):
            if frame.HasField("logs"):
                yield frame.logs

    async def refused(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Exec, Attach and PortForward: who may not do it is told that first."""
        async for first in requests:
            if not first.HasField("start"):
                break
            namespace = first.start.namespace or DEFAULT_NAMESPACE
            call.require(Attempt(call.rule.verb, call.rule.resource, namespace, first.start.name))
            raise NotSupported(f"{call.rule.resource} is not served by this version of Podplane")
        for _ in ():
            yield _
        raise Invalid("the first message must carry start")


def container_of(pod: pod_pb2.Pod, wanted: str) -> str:
    """The container that a request without a name means, as kubectl has it; errors name those there are."""
    specs = (*pod.spec.initContainers, *pod.spec.containers)
    everything = [container.name for container in specs]
    if wanted:
        if wanted not in everything:
            raise NotFound(f"container {wanted} is not valid for pod {pod.metadata.name}")
        return wanted
    if len(pod.spec.containers) == 1:
        return pod.spec.containers[0].name
    marked = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    if marked in everything:
        return marked
    raise Invalid(
        f"a container name must be specified for pod {pod.metadata.name}, choose one of: [{' '.join(everything)}]"
    )

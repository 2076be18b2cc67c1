"""Pods.Logs, by a reverse stream from the pod's node."""

from __future__ import annotations

from collections.abc import AsyncIterator

from controlplane.api.containers import container_of
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.nodes import Sessions
from controlplane.objects import Objects
from podplane.errors import Invalid
from podplane.kinds import POD
from podplane.v1 import requests_pb2, session_pb2


class PodLogs:
    """The Logs method of Pods."""

    def __init__(self, objects: Objects, sessions: Sessions) -> None:
        self._objects = objects
        self._sessions = sessions

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Logs": self.logs}

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

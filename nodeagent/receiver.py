"""Takes the control plane's frames in, in order: snapshots as a whole, deltas one by one. Level-triggered (D5).

Owns what is known of the cluster's revision. Never opens a connection and never acts on a pod: it tells Pods, Objects
and Streams. A snapshot that is cut off is forgotten: the next session brings another.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import grpc.aio

from nodeagent import membership
from nodeagent.membership import Membership
from nodeagent.node_status import boot_id, version
from nodeagent.paths import Paths
from nodeagent.pods.kept import Origin
from nodeagent.pods.manager import Pods
from nodeagent.pods.objects import Objects
from nodeagent.pods.outbox import Outbox
from nodeagent.streams import Streams
from podplane.v1.pod_pb2 import Pod
from podplane.v1.session_pb2 import ControlFrame, Digest, Hello, ObjectChange, PodTrace, Welcome

log = logging.getLogger(__name__)

_TURN = 64
"""Frames of a batch after which others have theirs."""
_KEPT = 1.0
"""Seconds after which a newer revision is kept. An agent that dies before learns it from the specs that it kept."""


@dataclass(slots=True)
class _Snapshot:
    pods: dict[str, Pod] = field(default_factory=dict)
    objects: list[ObjectChange] = field(default_factory=list)


class FrameReceiver:
    """The Receiver of session.py. Until `ready`, frames wait: nothing is begun before recovery is over."""

    def __init__(
        self, paths: Paths, node_name: str, objects: Objects, outbox: Outbox, on_welcome: Callable[[Welcome], None]
    ) -> None:
        self.membership: Membership = membership.load(paths.cluster)
        self.traces: Callable[[], list[PodTrace]] = list
        self.synced = False
        """Whether a whole snapshot has come in since the agent started."""
        self._paths = paths
        self._node_name = node_name
        self._objects = objects
        self._outbox = outbox
        self._on_welcome = on_welcome
        self._instance = str(uuid.uuid4())
        self._welcome = Welcome()
        self._snapshot: _Snapshot | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[tuple[Pods, Streams]] = asyncio.get_running_loop().create_future()
        self._channel: grpc.aio.Channel | None = None

    def ready(self, pods: Pods, streams: Streams) -> None:
        """Recovery is over."""
        known = self.membership
        newest = pods.newest(Origin(known.cluster_id, known.epoch))
        self.membership = replace(known, last_revision=max(known.last_revision, newest))
        self.traces = pods.traces
        streams.channel = self._channel
        self._ready.set_result((pods, streams))

    @property
    def is_connected(self) -> bool:
        return self._channel is not None

    @property
    def revision(self) -> int:
        """The store's revision that this node has taken in."""
        return self.membership.last_revision

    def hello(self) -> Hello:
        known = self.membership
        return Hello(
            nodeName=self._node_name,
            agentVersion=version(),
            bootID=boot_id(),
            instanceID=self._instance,
            clusterID=known.cluster_id,
            epoch=known.epoch,
            lastRevision=known.last_revision,
            pods=self.traces(),
            podCIDR=known.pod_cidr,
        )

    def connected(self, channel: grpc.aio.Channel | None) -> None:
        self._channel = channel
        self._snapshot = None
        if self._ready.done():
            self._ready.result()[1].channel = channel

    def digest(self) -> Digest | None:
        """What this node holds; None while it has not seen all."""
        if not self._ready.done() or not self.synced or self._snapshot is not None:
            return None
        services = {s.metadata.uid: s.metadata.resourceVersion for s in self._objects.services.values()}
        return Digest(pods=digest_of(self._ready.result()[0].versions), services=digest_of(services))

    async def receive(self, frame: ControlFrame) -> None:
        """Take one frame in, with what is in it."""
        if not frame.HasField("batch"):
            self._seen(await self._take(frame))
            return
        revision = 0
        for number, each in enumerate(frame.batch.frames):
            part = ControlFrame.FromString(each)
            if self._snapshot is None or not self._collect(part, self._snapshot):
                revision = await self._take(part) or revision
            if number % _TURN == 0:
                await asyncio.sleep(0)  # the others' turn
        self._seen(revision)

    async def _take(self, frame: ControlFrame) -> int:
        """Take a frame in; returns the revision that the node is at by it, 0 for none."""
        kind = frame.WhichOneof("frame")
        if kind == "welcome":
            self._welcome = frame.welcome
            self._on_welcome(frame.welcome)
        elif kind == "snapshotBegin":
            self._snapshot = _Snapshot()
        elif kind == "snapshotEnd":
            await self._end_snapshot(frame.revision)
            return frame.revision
        elif kind not in ("heartbeat", "probe", None) and await self._change(frame):
            return frame.revision
        return 0

    async def _parts(self) -> tuple[Pods, Streams]:
        pods, streams = await asyncio.shield(self._ready)
        pods.origin = Origin(self._welcome.clusterID, self._welcome.epoch)
        return pods, streams

    async def _end_snapshot(self, revision: int) -> None:
        pods, _ = await self._parts()
        snapshot, self._snapshot = self._snapshot or _Snapshot(), None
        authoritative = self.membership.rules_over(self._welcome, revision)
        self._objects.replace_all(snapshot.objects, authoritative=authoritative)
        pods.snapshot(snapshot.pods, authoritative=authoritative)
        self.synced = True
        log.info("snapshot taken in", extra={"revision": revision, "pods": len(snapshot.pods)})

    async def _change(self, frame: ControlFrame) -> bool:
        """Returns whether it has been acted on: not yet, where it is a part of a snapshot."""
        if self._snapshot is not None and self._collect(frame, self._snapshot):
            return False
        pods, streams = await self._parts()
        kind = frame.WhichOneof("frame")
        if kind == "bind":
            pods.put(frame.bind)
        elif kind == "update":
            pods.put(frame.update)
        elif kind == "unbind":
            pods.remove(frame.unbind.uid, float(frame.unbind.gracePeriodSeconds))
        elif kind == "withdrawn":
            pods.withdrawn(frame.withdrawn.uid)
        elif kind == "object":
            self._objects.apply(frame.object)
        elif kind == "openStream":
            streams.open(frame.openStream)
        elif kind == "verdict":
            pods.verdict(frame.verdict.uid, frame.verdict.keep, frame.verdict.reason)
        return True

    def _collect(self, frame: ControlFrame, snapshot: _Snapshot) -> bool:
        if frame.HasField("object"):
            snapshot.objects.append(frame.object)
        elif frame.HasField("bind"):
            snapshot.pods[frame.bind.metadata.uid] = frame.bind
        else:
            return False
        return True

    def _seen(self, revision: int) -> None:
        if not revision:
            return
        known, self.membership = self.membership, self.membership.seen(self._welcome, revision)
        if replace(known, last_revision=revision) != self.membership:
            self._save()
        elif known != self.membership and self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(_KEPT, self._save)
        self._outbox.acknowledge(revision)

    def _save(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        try:
            membership.save(self._paths.cluster, self.membership)
        except OSError as error:
            # An older file is safe: it makes the next snapshot rule over less.
            log.warning("cannot keep what is known of the cluster: %s", error)


def digest_of(versions: Mapping[str, str]) -> str:
    """sha256, hex, over the sorted lines `uid resourceVersion`, as the control plane makes it."""
    lines: Iterable[str] = sorted(f"{uid} {version}\n" for uid, version in versions.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()

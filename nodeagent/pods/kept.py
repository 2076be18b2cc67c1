"""The specs of this node's pods, kept so that pods go on without the control plane: state/pods/<uid>.pb.

Beside each spec stands which cluster bound the pod, and in which epoch of its store (<uid>.json): a store that takes
another's place must not remove what it never knew (D5). Owns this directory. What cannot be read is left out and
reported; a write that fails leaves the file as it was and raises OSError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from nodeagent.paths import Paths
from podplane.files import replace, sync
from podplane.v1.pod_pb2 import Pod
from podplane.v1.session_pb2 import PodTrace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """The cluster that bound a pod, and the epoch of its store. Empty: not known."""

    cluster_id: str = ""
    epoch: str = ""


UNKNOWN = Origin()


class KeptPods:
    """The directory. Origins are remembered: they are asked for on every connection."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._origins: dict[str, Origin] = {}
        self._unsynced: dict[Path, None] = {}

    def read(self) -> dict[str, Pod]:
        """Every spec by pod uid, with its origin taken up."""
        specs = read_specs(self._paths)
        self._origins = {uid: _read_origin(_origin_path(self._paths, uid)) for uid in specs}
        return specs

    def origin(self, uid: str) -> Origin:
        """Who bound the pod."""
        return self._origins.get(uid, UNKNOWN)

    def keep(self, pod: Pod, origin: Origin) -> None:
        """Keep the newest spec, and who bound the pod; what comes of a power cut is sync()'s. Raises OSError."""
        uid = pod.metadata.uid
        if self._origins.get(uid) != origin:
            # Before the spec: a pod whose origin is lost would go with the next store that does not know it.
            self._write(_origin_path(self._paths, uid), json.dumps(dataclasses.asdict(origin)).encode())
            self._origins[uid] = origin
        self._write(spec_path(self._paths, uid), pod.SerializeToString())

    def _write(self, path: Path, data: bytes) -> None:
        replace(path, data)
        self._unsynced[path] = None

    def sync(self) -> None:
        """What was kept so far is on the disk when this returns; for any thread. Raises OSError.

        Else a power cut may take the spec of a pod that the journal knows, and with the spec the pod and its volumes.
        """
        taken = []
        try:
            while self._unsynced:
                path, _ = self._unsynced.popitem()
                taken.append(path)
                with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
                    sync(path)
            if taken:
                sync(self._paths.pods)
        except OSError:
            self._unsynced |= dict.fromkeys(taken)
            raise

    def forget(self, uid: str) -> None:
        """Nothing of the pod is left."""
        spec_path(self._paths, uid).unlink(missing_ok=True)
        _origin_path(self._paths, uid).unlink(missing_ok=True)
        self._origins.pop(uid, None)

    def trace(self, pod: Pod, phase: str) -> PodTrace:
        """The pod as Hello names it."""
        trace = PodTrace(uid=pod.metadata.uid, namespace=pod.metadata.namespace, name=pod.metadata.name, phase=phase)
        origin = self.origin(pod.metadata.uid)
        if origin != UNKNOWN:
            trace.clusterID, trace.epoch = origin.cluster_id, origin.epoch
        return trace


def read_specs(paths: Paths) -> dict[str, Pod]:
    """The kept specs; one that cannot be read is left out and reported."""
    specs: dict[str, Pod] = {}
    for path in sorted(paths.pods.glob("*.pb")):
        try:
            pod = Pod.FromString(path.read_bytes())
        except (DecodeError, OSError) as error:
            log.warning("cannot read %s: %s: it is left out", path, error)
            continue
        if pod.metadata.uid == path.stem:
            specs[path.stem] = pod
    return specs


def spec_path(paths: Paths, uid: str) -> Path:
    """Where a pod's spec is kept."""
    return paths.pods / f"{uid}.pb"


def _origin_path(paths: Paths, uid: str) -> Path:
    return paths.pods / f"{uid}.json"


def _read_origin(path: Path) -> Origin:
    try:
        found = json.loads(path.read_text())
        return Origin(str(found["cluster_id"]), str(found["epoch"]))
    except FileNotFoundError:
        return UNKNOWN
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("cannot read %s: %s: who bound the pod is not known", path, error)
        return UNKNOWN

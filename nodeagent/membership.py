"""What the node remembers of its cluster: which it is, how far it has seen it, and the ranges it was given.

Kept in state/cluster.json, so that a node whose control plane is away sets its network up after a reboot, and so that
a snapshot of another cluster, or of an older state of this one, removes nothing (D5).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from podplane.files import replace
from podplane.v1.session_pb2 import Welcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Membership:
    """Empty strings and 0: not known."""

    cluster_id: str = ""
    epoch: str = ""
    last_revision: int = 0
    pod_cidr: str = ""
    service_cidr: str = ""
    cluster_cidr: str = ""

    def rules_over(self, welcome: Welcome, revision: int) -> bool:
        """Whether absence from a snapshot of `revision` removes a pod: same cluster, same epoch, not older."""
        same = self.cluster_id == welcome.clusterID and self.epoch == welcome.epoch
        return same and revision >= self.last_revision

    def given(self, welcome: Welcome) -> Membership:
        """With the ranges of `welcome`; what has been seen stays until a snapshot has come in."""
        return dataclasses.replace(
            self, pod_cidr=welcome.podCIDR, service_cidr=welcome.serviceCIDR, cluster_cidr=welcome.clusterCIDR
        )

    def seen(self, welcome: Welcome, revision: int) -> Membership:
        """After a snapshot or delta of `revision`."""
        return Membership(
            cluster_id=welcome.clusterID,
            epoch=welcome.epoch,
            last_revision=revision,
            pod_cidr=welcome.podCIDR,
            service_cidr=welcome.serviceCIDR,
            cluster_cidr=welcome.clusterCIDR,
        )


def load(path: Path) -> Membership:
    """What was kept; nothing where it cannot be read (pods are then kept until the control plane has decided)."""
    try:
        found = json.loads(path.read_text())
        return Membership(**{field.name: found[field.name] for field in dataclasses.fields(Membership)})
    except FileNotFoundError:
        return Membership()
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("cannot read %s: %s: as if the node had never seen its cluster", path, error)
        return Membership()


def save(path: Path, membership: Membership) -> None:
    """Keep it."""
    replace(path, json.dumps(dataclasses.asdict(membership)).encode())

"""What admission knows beside the object itself: who writes, what is stored, and the cluster's settings."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from controlplane.api.allocate import Ledger, Taken
from podplane.kinds import Kind
from podplane.v1 import service_pb2

_SERVICE_CIDR = ipaddress.IPv4Network("10.96.0.0/16")

Lookup = Callable[[Kind, str, str], Message | None]


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Options of the control plane that admission uses. `toleration_seconds`: how long a pod stays on a lost node."""

    service_cidr: ipaddress.IPv4Network = _SERVICE_CIDR
    node_ports: range = range(30000, 32768)
    toleration_seconds: int = 15


def _nothing(_kind: Kind, _namespace: str, _name: str) -> Message | None:
    return None


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """One write. `verb` is create or update (apply is one of them). `services` gives every stored service.

    `ledger` spares reading all services for each write of one: a caller that keeps a Ledger up to date gives it.
    Two writes of services at once must not both allocate from the same state: the caller serialises them.
    """

    verb: str
    username: str = ""
    groups: Sequence[str] = ()
    lookup: Lookup = _nothing
    services: Callable[[], Iterable[service_pb2.Service]] = tuple
    ledger: Ledger | None = None
    settings: AdmissionSettings = AdmissionSettings()
    rng: random.Random = field(default_factory=random.Random)

    def taken(self, namespace: str, name: str) -> Taken:
        """The addresses and node ports that services other than the named one hold."""
        ledger = self.ledger if self.ledger is not None else Ledger(self.services())
        return ledger.taken(namespace, name)

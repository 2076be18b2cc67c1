"""Admission: every write passes the mutators of its kind, in order, then all its validators; of a status, its own.

Lists of plain functions, below. Pure. Mutators change the object and do not judge; validators judge and change
nothing. Nothing here raises for bad input: `validate` returns all that is wrong. What is right may still be against the
policy of its namespace: `forbids` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from controlplane.api import defaults, pod_security, service_defaults, validation
from controlplane.api.admission_context import AdmissionContext, AdmissionSettings
from podplane import kinds
from podplane.errors import FieldError
from podplane.kinds import Kind
from podplane.v1 import namespace_pb2, pod_pb2

__all__ = ["MUTATORS", "VALIDATORS", "Admission", "AdmissionContext", "AdmissionSettings"]

# The message types differ by kind; the registration below is what pairs them.
Mutator = Callable[[Any, Any, AdmissionContext], None]
Validator = Callable[[Any, Any, AdmissionContext], list[FieldError]]
StatusValidator = Callable[[Any, Any], list[FieldError]]

MUTATORS: tuple[tuple[Kind | None, Mutator], ...] = (
    (None, defaults.canonical_quantities),
    (kinds.POD, defaults.pod),
    (kinds.DEPLOYMENT, defaults.deployment),
    (kinds.REPLICA_SET, defaults.replica_set),
    (kinds.SERVICE, service_defaults.service),
    (kinds.SERVICE, service_defaults.addresses),
    (kinds.SECRET, defaults.secret),
    (kinds.NAMESPACE, defaults.namespace),
    (kinds.NODE, defaults.node),
    (kinds.ENDPOINT_SLICE, defaults.endpoint_slice),
)
"""(kind or None for every kind, function), in the order in which they run."""

VALIDATORS: tuple[tuple[Kind | None, Validator], ...] = (
    (None, validation.metadata),
    (None, validation.supported),
    (kinds.POD, validation.pod),
    (kinds.DEPLOYMENT, validation.deployment),
    (kinds.REPLICA_SET, validation.replica_set),
    (kinds.SERVICE, validation.service),
    (kinds.CONFIG_MAP, validation.config_map),
    (kinds.SECRET, validation.secret),
    (kinds.NAMESPACE, validation.namespace),
    (kinds.NODE, validation.node),
    (kinds.ENDPOINT_SLICE, validation.endpoint_slice),
    (kinds.EVENT, validation.event),
)

STATUS_VALIDATORS: Mapping[str, StatusValidator] = {
    kinds.POD.name: validation.pod_status,
    kinds.DEPLOYMENT.name: validation.deployment_status,
    kinds.REPLICA_SET.name: validation.replica_set_status,
    kinds.SERVICE.name: validation.service_status,
    kinds.NAMESPACE.name: validation.namespace_status,
    kinds.NODE.name: validation.node_status,
}
"""By the name of every kind that has a status."""


class Admission:
    """The mutators and validators that writes pass."""

    def __init__(
        self,
        mutators: Sequence[tuple[Kind | None, Mutator]] = MUTATORS,
        validators: Sequence[tuple[Kind | None, Validator]] = VALIDATORS,
    ) -> None:
        self._mutators = _by_name(mutators)
        self._validators = _by_name(validators)

    def mutate(self, obj: Message, old: Message | None, context: AdmissionContext) -> None:
        """Complete `obj` in place; `old` is the stored object that an update replaces, None on create."""
        for mutator in self._mutators[obj.DESCRIPTOR.name]:
            mutator(obj, old, context)

    def validate(self, obj: Message, old: Message | None, context: AdmissionContext) -> list[FieldError]:
        """Everything that is wrong with `obj` after mutate, and with the step from `old` to it."""
        return [wrong for validator in self._validators[obj.DESCRIPTOR.name] for wrong in validator(obj, old, context)]

    def validate_status(self, obj: Message, old: Message) -> list[FieldError]:
        """Everything that is wrong with `obj`'s status, and with the step from the stored one of `old` to it."""
        return STATUS_VALIDATORS[obj.DESCRIPTOR.name](obj, old)

    def forbids(self, obj: Message, old: Message | None, context: AdmissionContext) -> str:
        """Why the policy of the object's namespace forbids it; empty where it does not. For what validate found right.

        Templates of workloads are not judged, only the pods that are made of them, as Kubernetes enforces it.
        """
        if not isinstance(obj, pod_pb2.Pod) or (isinstance(old, pod_pb2.Pod) and obj.spec == old.spec):
            return ""
        home = context.lookup(kinds.NAMESPACE, "", obj.metadata.namespace)
        if not isinstance(home, namespace_pb2.Namespace):
            return ""
        return pod_security.violation(pod_security.policy(home.metadata.labels), obj)


def _by_name(listed: Sequence[tuple[Kind | None, Any]]) -> dict[str, list[Any]]:
    return {
        kind.name: [function for of, function in listed if of is None or of is kind] for kind in kinds.KINDS.values()
    }

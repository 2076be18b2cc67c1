"""Pods and pod templates, and what of a pod an update may change. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.containers import containers
from controlplane.api.validation.networking import networking
from controlplane.api.validation.problems import Problems
from controlplane.api.validation.scheduling import scheduling
from controlplane.api.validation.security import pod_security
from controlplane.api.validation.volumes import volumes
from podplane import names
from podplane.errors import FieldError
from podplane.manifest.schema import Shape, fields
from podplane.v1 import pod_pb2

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_MAX_SECONDS = (1 << 31) - 1
_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(obj: pod_pb2.Pod, old: pod_pb2.Pod | None, _context: AdmissionContext) -> list[FieldError]:
    """A pod; on update also that only what may change has changed."""
    found = Problems(_judged(obj.spec))
    if old is not None:
        _update(obj.spec, old.spec, found)
    elif obj.spec.nodeName:
        found.syntax("spec.nodeName", obj.spec.nodeName, names.dns_subdomain)
    return found


_REMEMBERED = 4096  # bytes of a spec: larger ones would fill the memory


def _judged(spec: pod_pb2.PodSpec) -> Iterable[FieldError]:
    """What is wrong with a spec. The pods of one template have the same: it is judged once."""
    encoded = spec.SerializeToString(deterministic=True)
    return _judge_encoded(encoded) if len(encoded) <= _REMEMBERED else _judge(spec)


@lru_cache(maxsize=1024)
def _judge_encoded(spec: bytes) -> tuple[FieldError, ...]:
    return tuple(_judge(pod_pb2.PodSpec.FromString(spec)))


def _judge(spec: pod_pb2.PodSpec) -> Problems:
    found = Problems()
    pod_spec(spec, "spec", found, of_pod=True)
    return found


def pod_spec(spec: pod_pb2.PodSpec, path: str, found: Problems, *, of_pod: bool) -> None:
    """The spec of a pod or of a template."""
    mountable = volumes(spec.volumes, f"{path}.volumes", found)
    seen: set[str] = set()
    if not spec.containers:
        found.required(f"{path}.containers")
    grace = spec.terminationGracePeriodSeconds
    containers(spec.containers, f"{path}.containers", mountable, grace, seen, found)
    containers(spec.initContainers, f"{path}.initContainers", mountable, grace, seen, found)
    found.one_of(f"{path}.restartPolicy", spec.restartPolicy, RESTART_POLICIES)
    found.one_of(f"{path}.preemptionPolicy", spec.preemptionPolicy, ("Never", "PreemptLowerPriority"), required=False)
    found.at_least(f"{path}.terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds)
    if spec.HasField("activeDeadlineSeconds") and not 1 <= spec.activeDeadlineSeconds <= _MAX_SECONDS:
        found.invalid(f"{path}.activeDeadlineSeconds", spec.activeDeadlineSeconds, "must be between 1 and 2147483647")
    for name in ("schedulerName", "priorityClassName"):
        found.syntax(f"{path}.{name}", getattr(spec, name), names.dns_subdomain, required=False)
    scheduling(spec, path, found)
    networking(spec, path, found, of_pod=of_pod)
    pod_security(spec, f"{path}.securityContext", found)
    for index, reference in enumerate(spec.imagePullSecrets):
        found.syntax(f"{path}.imagePullSecrets[{index}].name", reference.name, names.dns_subdomain)
    for index, gate in enumerate(spec.readinessGates):
        found.syntax(f"{path}.readinessGates[{index}].conditionType", gate.conditionType, names.qualified_name)


def _update(spec: pod_pb2.PodSpec, old: pod_pb2.PodSpec, found: Problems) -> None:
    _deadline(spec, old, found)
    for index, toleration in enumerate(old.tolerations):
        if toleration not in spec.tolerations:
            found.forbidden(
                f"spec.tolerations[{index}]", "existing toleration can not be modified except its tolerationSeconds"
            )
    comparable = _with_mutable_fields_of(spec, old)
    for name in differing(comparable, old, "spec"):
        found.forbidden(name, _MUTABLE)


def _deadline(spec: pod_pb2.PodSpec, old: pod_pb2.PodSpec, found: Problems) -> None:
    """It may be set, and brought forward."""
    path = "spec.activeDeadlineSeconds"
    if not old.HasField("activeDeadlineSeconds"):
        return
    if not spec.HasField("activeDeadlineSeconds"):
        found.invalid(path, None, "must not update from a positive integer to nil value")
    elif spec.activeDeadlineSeconds > old.activeDeadlineSeconds:
        found.invalid(path, spec.activeDeadlineSeconds, "must be less than or equal to previous value")


def _with_mutable_fields_of(spec: pod_pb2.PodSpec, old: pod_pb2.PodSpec) -> pod_pb2.PodSpec:
    """The new spec with everything that may change as it was: what still differs may not."""
    result = pod_pb2.PodSpec()
    result.CopyFrom(spec)
    for mine, theirs in ((result.containers, old.containers), (result.initContainers, old.initContainers)):
        for container, before in zip(mine, theirs, strict=False):
            container.image = before.image
    result.ClearField("activeDeadlineSeconds")
    if old.HasField("activeDeadlineSeconds"):
        result.activeDeadlineSeconds = old.activeDeadlineSeconds
    del result.tolerations[:]
    result.tolerations.extend(old.tolerations)
    if old.terminationGracePeriodSeconds < 0 and spec.terminationGracePeriodSeconds == 1:
        result.terminationGracePeriodSeconds = old.terminationGracePeriodSeconds
    return result


def differing(new: Message, old: Message, path: str) -> list[str]:
    """The paths of the smallest fields in which two messages of one type differ."""
    found: list[str] = []
    for field in fields(new.DESCRIPTOR).values():
        mine: Any = getattr(new, field.name)
        theirs: Any = getattr(old, field.name)
        at = f"{path}.{field.name}"
        if mine == theirs and (field.is_list or field.is_map or new.HasField(field.name) == old.HasField(field.name)):
            continue
        nested = field.shape is Shape.MESSAGE and not field.is_map
        if nested and field.is_list and len(mine) == len(theirs):
            for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
                found += differing(one, other, f"{at}[{index}]")
        elif nested and not field.is_list and new.HasField(field.name) and old.HasField(field.name):
            found += differing(mine, theirs, at)
        else:
            found.append(at)
    return found

"""Deployments and replica sets: selectors that match their templates and never change, and rollout bounds. Pure."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Value

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.metadata import annotation_map, label_map
from controlplane.api.validation.pods import pod_spec
from controlplane.api.validation.problems import IMMUTABLE, NOT_NEGATIVE, Problems
from podplane import intstr, selectors
from podplane.errors import FieldError, Invalid
from podplane.v1 import apps_pb2, meta_pb2, pod_pb2


def deployment(
    obj: apps_pb2.Deployment, old: apps_pb2.Deployment | None, _context: AdmissionContext
) -> list[FieldError]:
    """A deployment and its template."""
    found, spec = Problems(), obj.spec
    for name in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        found.at_least(f"spec.{name}", getattr(spec, name))
    if spec.progressDeadlineSeconds <= spec.minReadySeconds and spec.progressDeadlineSeconds >= 0:
        found.invalid(
            "spec.progressDeadlineSeconds", spec.progressDeadlineSeconds, "must be greater than minReadySeconds"
        )
    _strategy(spec.strategy, found)
    _workload(spec, old.spec if old is not None else None, found)
    return found


def replica_set(
    obj: apps_pb2.ReplicaSet, old: apps_pb2.ReplicaSet | None, _context: AdmissionContext
) -> list[FieldError]:
    """A replica set and its template."""
    found = Problems()
    for name in ("replicas", "minReadySeconds"):
        found.at_least(f"spec.{name}", getattr(obj.spec, name))
    _workload(obj.spec, old.spec if old is not None else None, found)
    return found


def label_selector(selector: meta_pb2.LabelSelector, path: str, found: Problems) -> selectors.Selector | None:
    """The selector, where it can be read."""
    label_map(selector.matchLabels, f"{path}.matchLabels", found)
    for index, requirement in enumerate(selector.matchExpressions):
        at = f"{path}.matchExpressions[{index}]"
        if requirement.operator in ("In", "NotIn") and not requirement.values:
            found.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif requirement.operator in ("Exists", "DoesNotExist") and requirement.values:
            found.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif requirement.operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            found.invalid(f"{at}.operator", requirement.operator, "not a valid selector operator")
    try:
        return selectors.from_message(selector)
    except Invalid as error:
        if not found:
            found.invalid(path, "", str(error))
        return None


Spec = apps_pb2.DeploymentSpec | apps_pb2.ReplicaSetSpec


def _workload(spec: Spec, old: Spec | None, found: Problems) -> None:
    selector = label_selector(spec.selector, "spec.selector", found) if spec.HasField("selector") else None
    if not spec.HasField("selector"):
        found.required("spec.selector")
    elif not spec.selector.matchLabels and not spec.selector.matchExpressions:
        found.invalid("spec.selector", "", "empty selector is invalid for deployment")
    if old is not None and spec.selector != old.selector:
        found.invalid("spec.selector", spec.selector, IMMUTABLE)
    if not spec.HasField("template"):
        found.required("spec.template")
        return
    if selector is not None and not selector.matches(spec.template.metadata.labels):
        shown = dict(sorted(spec.template.metadata.labels.items()))
        found.invalid("spec.template.metadata.labels", shown, "`selector` does not match template `labels`")
    _template(spec.template, found)


def _template(template: pod_pb2.PodTemplateSpec, found: Problems) -> None:
    label_map(template.metadata.labels, "spec.template.metadata.labels", found)
    annotation_map(template.metadata.annotations, "spec.template.metadata.annotations", found)
    pod_spec(template.spec, "spec.template.spec", found, of_pod=False)
    path = "spec.template.spec"
    if template.spec.restartPolicy not in ("", "Always"):
        found.unsupported(f"{path}.restartPolicy", template.spec.restartPolicy, ("Always",))
    if template.spec.HasField("activeDeadlineSeconds"):
        found.forbidden(f"{path}.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported")


def _strategy(strategy: apps_pb2.DeploymentStrategy, found: Problems) -> None:
    rolling = strategy.rollingUpdate
    if strategy.type == "Recreate":
        if strategy.HasField("rollingUpdate"):
            found.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        return
    found.one_of("spec.strategy.type", strategy.type, ("Recreate", "RollingUpdate"))
    path = "spec.strategy.rollingUpdate"
    unavailable = _bound(rolling.maxUnavailable, f"{path}.maxUnavailable", found)
    surge = _bound(rolling.maxSurge, f"{path}.maxSurge", found)
    if unavailable == 0 and surge == 0:
        found.invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
    share = intstr.percent(rolling.maxUnavailable)
    if share is not None and share > 100:
        found.invalid(f"{path}.maxUnavailable", rolling.maxUnavailable.string_value, "must not be greater than 100%")


def _bound(value: Value, path: str, found: Problems) -> int | None:
    """The number or percentage; None where it is neither."""
    number = intstr.number(value)
    if number is not None and number < 0:
        found.invalid(path, number, NOT_NEGATIVE)
    if number is None:
        number = intstr.percent(value)
        if number is None:
            found.invalid(
                path,
                value.string_value,
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%')",
            )
    return number

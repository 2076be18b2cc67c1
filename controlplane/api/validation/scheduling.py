"""Where a pod may run: node selectors, node affinity, tolerations; and the taints of nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.api.validation.problems import Problems
from podplane import names
from podplane.v1 import node_pb2, pod_pb2, scheduling_pb2

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def scheduling(spec: pod_pb2.PodSpec, path: str, found: Problems) -> None:
    """Everything of a pod's spec that the scheduler reads, save resources."""
    for key, value in sorted(spec.nodeSelector.items()):
        found.syntax(f"{path}.nodeSelector", key, names.qualified_name)
        found.syntax(f"{path}.nodeSelector", value, names.label_value, required=False)
    if spec.affinity.HasField("nodeAffinity"):
        _node_affinity(spec.affinity.nodeAffinity, f"{path}.affinity.nodeAffinity", found)
    for index, toleration in enumerate(spec.tolerations):
        _toleration(toleration, f"{path}.tolerations[{index}]", found)


def taints(listed: Iterable[node_pb2.Taint], path: str, found: Problems) -> None:
    """Taints of a node: one for each key and effect."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(listed):
        at = f"{path}[{index}]"
        found.syntax(f"{at}.key", taint.key, names.qualified_name)
        found.syntax(f"{at}.value", taint.value, names.label_value, required=False)
        found.one_of(f"{at}.effect", taint.effect, EFFECTS)
        if (taint.key, taint.effect) in seen:
            found.duplicate(at, f"{taint.key}:{taint.effect}")
        seen.add((taint.key, taint.effect))


def _node_affinity(affinity: scheduling_pb2.NodeAffinity, path: str, found: Problems) -> None:
    name = "requiredDuringSchedulingIgnoredDuringExecution"
    if affinity.HasField("requiredDuringSchedulingIgnoredDuringExecution"):
        terms = affinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
        if not terms:
            found.required(f"{path}.{name}.nodeSelectorTerms", "must have at least one node selector term")
        for index, term in enumerate(terms):
            _term(term, f"{path}.{name}.nodeSelectorTerms[{index}]", found)
    for index, preferred in enumerate(affinity.preferredDuringSchedulingIgnoredDuringExecution):
        at = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        if not 1 <= preferred.weight <= 100:
            found.invalid(f"{at}.weight", preferred.weight, "must be in the range 1-100")
        _term(preferred.preference, f"{at}.preference", found)


def _term(term: scheduling_pb2.NodeSelectorTerm, path: str, found: Problems) -> None:
    for index, requirement in enumerate(term.matchExpressions):
        at = f"{path}.matchExpressions[{index}]"
        found.syntax(f"{at}.key", requirement.key, names.qualified_name)
        _values(requirement, at, found)
        for position, value in enumerate(requirement.values if requirement.operator in ("In", "NotIn") else ()):
            found.syntax(f"{at}.values[{position}]", value, names.label_value, required=False)
    for index, requirement in enumerate(term.matchFields):
        at = f"{path}.matchFields[{index}]"
        if requirement.key != "metadata.name":
            found.invalid(f"{at}.key", requirement.key, "not a valid field selector key")
        found.one_of(f"{at}.operator", requirement.operator, ("In", "NotIn"))
        if len(requirement.values) != 1:
            found.required(
                f"{at}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )


def _values(requirement: scheduling_pb2.NodeSelectorRequirement, path: str, found: Problems) -> None:
    operator, values = requirement.operator, requirement.values
    if operator in ("In", "NotIn") and not values:
        found.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist") and values:
        found.forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt") and (len(values) != 1 or not values[0].removeprefix("-").isdecimal()):
        found.required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt': an integer")
    elif operator not in _OPERATORS:
        found.invalid(f"{path}.operator", operator, "not a valid selector operator")


def _toleration(toleration: scheduling_pb2.Toleration, path: str, found: Problems) -> None:
    if toleration.key:
        found.syntax(f"{path}.key", toleration.key, names.qualified_name)
    elif toleration.operator != "Exists":
        found.invalid(
            f"{path}.operator",
            toleration.operator,
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    if toleration.operator == "Exists":
        if toleration.value:
            found.invalid(f"{path}.operator", toleration.value, "value must be empty when `operator` is 'Exists'")
    elif toleration.operator in ("", "Equal"):
        found.syntax(f"{path}.operator", toleration.value, names.label_value, required=False)
    else:
        found.unsupported(f"{path}.operator", toleration.operator, ("Equal", "Exists"))
    if toleration.effect and toleration.effect not in EFFECTS:
        found.unsupported(f"{path}.effect", toleration.effect, EFFECTS)
    if toleration.HasField("tolerationSeconds") and toleration.effect != "NoExecute":
        found.invalid(f"{path}.effect", toleration.effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")

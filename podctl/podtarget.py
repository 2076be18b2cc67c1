"""Which pod and container a verb that looks into one pod means."""

from __future__ import annotations

import sys
from typing import Any

from podctl.client import Client, Query
from podctl.failure import Failure
from podctl.resources import one_target
from podctl.tables import selector_text
from podplane.kinds import POD, SERVICE, Kind

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def one_pod(client: Client, word: str) -> Any:
    """The pod of that name, or one of those that `deployment/web` has: a running and ready one, the oldest first."""
    kind, name = one_target([word], default="pods")
    obj = client.get(kind, client.namespace, name)
    return obj if kind is POD else pods_behind(client, kind, obj, "attach to")[0]


def pods_behind(client: Client, kind: Kind, obj: Any, purpose: str) -> list[Any]:
    """The pods that a workload or service selects: running and ready ones first, then the oldest. Failure for none."""
    selector = getattr(getattr(obj, "spec", None), "selector", None)
    if selector is None:
        raise Failure(f"error: cannot {purpose} {kind.plural}: they select no pods")
    if hasattr(selector, "matchLabels"):
        labels = selector_text(selector)
    else:
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    pods = client.list(POD, Query(client.namespace, labels)).items if labels and labels != "<none>" else []
    if not pods:
        raise Failure(f"error: no pods found for {kind.plural}/{obj.metadata.name}")
    return sorted(pods, key=_preference)


def _preference(pod: Any) -> tuple[bool, bool, int]:
    ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)
    return pod.status.phase != "Running", not ready, pod.metadata.creationTimestamp.seconds


def default_container(pod: Any, *, quiet: bool = False) -> str:
    """The container that is meant where none is named; where there are several, says which it is."""
    apps: list[str] = [one.name for one in pod.spec.containers]
    default = pod.metadata.annotations.get(DEFAULT_CONTAINER)
    if default:
        return str(default)
    if len(apps) + len(pod.spec.initContainers) > 1 and not quiet:
        every = ", ".join([*apps, *(f"{one.name} (init)" for one in pod.spec.initContainers)])
        print(f'Defaulted container "{apps[0]}" out of: {every}', file=sys.stderr)
    return apps[0]


def pod_port(client: Client, word: str, pod: Any, port: int) -> int:
    """The pod's port behind a port of what was named: a service's port has a target."""
    kind, name = one_target([word], default="pods")
    if kind is not SERVICE:
        return port
    for offered in client.get(SERVICE, client.namespace, name).spec.ports:
        if offered.port == port:
            return _target(offered, pod)
    raise Failure(f"error: Service {name} does not have a service port {port}")


def _target(offered: Any, pod: Any) -> int:
    target = offered.targetPort
    if target.WhichOneof("kind") != "string_value":
        return int(target.number_value) or int(offered.port)
    if target.string_value.isdigit():
        return int(target.string_value)
    for container in pod.spec.containers:
        for port in container.ports:
            if port.name == target.string_value:
                return int(port.containerPort)
    raise Failure(f"error: Pod '{pod.metadata.name}' does not have a named port '{target.string_value}'")

"""One row for one object, kind by kind, with the columns that kubectl prints. Pure: the time is an argument.

The columns are those of Kubernetes' server-side printers (pkg/printers/internalversion/printers.go).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from podctl.durations import age, seconds_of
from podplane import statuses
from podplane.duration import human
from podplane.v1 import (
    apps_pb2,
    config_pb2,
    endpointslice_pb2,
    event_pb2,
    meta_pb2,
    namespace_pb2,
    node_pb2,
    pod_pb2,
    service_pb2,
)

NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Table:
    """Titles (a wide one starts with `+`) and what makes the cells of one object, wide ones included."""

    titles: tuple[str, ...]
    cells: Callable[[Any, float], list[str]]

    def header(self, wide: bool) -> list[str]:
        return [title.removeprefix("+") for title in self.titles if wide or not title.startswith("+")]

    def row(self, obj: Any, now: float, wide: bool) -> list[str]:
        """The object's cells; `now` in Unix seconds."""
        cells = zip(self.titles, self.cells(obj, now), strict=True)
        return [cell for title, cell in cells if wide or not title.startswith("+")]


def labels_text(labels: Mapping[str, str]) -> str:
    """`a=1,b=2`, or `<none>`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or NONE


def selector_text(selector: meta_pb2.LabelSelector) -> str:
    """A label selector as people type it (apimachinery FormatLabelSelector)."""
    parts = [f"{key}={value}" for key, value in sorted(selector.matchLabels.items())]
    for one in selector.matchExpressions:
        values = ",".join(sorted(one.values))
        forms = {"In": f"{one.key} in ({values})", "NotIn": f"{one.key} notin ({values})", "Exists": one.key}
        parts.append(forms.get(one.operator, f"!{one.key}"))
    return ",".join(parts) or NONE


def node_status(node: node_pb2.Node) -> str:
    """Ready, NotReady or Unknown, and whether the node takes new pods."""
    ready = next((one for one in node.status.conditions if one.type == "Ready"), None)
    word = "Unknown" if ready is None else "Ready" if ready.status == "True" else "NotReady"
    return word + (",SchedulingDisabled" if node.spec.unschedulable else "")


def node_roles(node: node_pb2.Node) -> str:
    """The roles that labels give a node, comma separated."""
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in node.metadata.labels if key.startswith(prefix)}
    if named := node.metadata.labels.get("kubernetes.io/role"):
        roles.add(named)
    return ",".join(sorted(roles - {""})) or NONE


def ports_text(service: service_pb2.Service) -> str:
    """`80:30080/TCP,443/TCP`."""
    return (
        ",".join(
            f"{port.port}{f':{port.nodePort}' if port.nodePort else ''}/{port.protocol or 'TCP'}"
            for port in service.spec.ports
        )
        or NONE
    )


def external_ip(service: service_pb2.Service) -> str:
    """Addresses of a service from outside, `<pending>` while a load balancer has none."""
    spec = service.spec
    if spec.type == "ExternalName":
        return spec.externalName
    addresses = list(spec.externalIPs)
    if spec.type == "LoadBalancer":
        addresses += [one.ip or one.hostname for one in service.status.loadBalancer.ingress]
        return ",".join(addresses) or "<pending>"
    return ",".join(addresses) or NONE


def event_source(event: event_pb2.Event) -> str:
    """Component and host, or the controller that newer events name."""
    component = event.source.component or event.reportingComponent
    host = event.source.host or event.reportingInstance
    return f"{component}, {host}" if host else component


def event_times(event: event_pb2.Event) -> tuple[float, float, int]:
    """(first seen, last seen, how often); times in Unix seconds, 0 where unknown."""
    moment = seconds_of(event.eventTime)
    first, last = seconds_of(event.firstTimestamp) or moment, seconds_of(event.lastTimestamp) or moment
    count = event.count or 1
    if event.HasField("series"):
        last, count = seconds_of(event.series.lastObservedTime) or last, event.series.count
    created = seconds_of(event.metadata.creationTimestamp)
    return first or last or created, last or first or created, count


def restarts_text(pod: pod_pb2.Pod, now: float) -> str:
    """`3 (10s ago)`, or a bare count where the time of the last one is not known."""
    count, last = statuses.restarts(pod)
    return f"{count} ({age(last, now)} ago)" if count and last is not None else str(count)


def _pod(pod: pod_pb2.Pod, now: float) -> list[str]:
    gates = [gate.conditionType for gate in pod.spec.readinessGates]
    true = {one.type for one in pod.status.conditions if one.status == "True"}
    return [
        pod.metadata.name,
        "{}/{}".format(*statuses.ready(pod)),
        statuses.shown(pod),
        restarts_text(pod, now),
        age(pod.metadata.creationTimestamp, now),
        pod.status.podIP or NONE,
        pod.spec.nodeName or NONE,
        pod.status.nominatedNodeName or NONE,
        f"{sum(gate in true for gate in gates)}/{len(gates)}" if gates else NONE,
    ]


def _node(node: node_pb2.Node, now: float) -> list[str]:
    info = node.status.nodeInfo
    addresses = {one.type: one.address for one in reversed(node.status.addresses)}
    return [
        node.metadata.name,
        node_status(node),
        node_roles(node),
        age(node.metadata.creationTimestamp, now),
        info.kubeletVersion,
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.osImage or "<unknown>",
        info.kernelVersion or "<unknown>",
        info.containerRuntimeVersion or "<unknown>",
    ]


def _template(template: pod_pb2.PodTemplateSpec) -> list[str]:
    containers = template.spec.containers
    return [",".join(one.name for one in containers), ",".join(one.image for one in containers)]


def _deployment(obj: apps_pb2.Deployment, now: float) -> list[str]:
    return [
        obj.metadata.name,
        f"{obj.status.readyReplicas}/{obj.spec.replicas}",
        str(obj.status.updatedReplicas),
        str(obj.status.availableReplicas),
        age(obj.metadata.creationTimestamp, now),
        *_template(obj.spec.template),
        selector_text(obj.spec.selector),
    ]


def _replica_set(obj: apps_pb2.ReplicaSet, now: float) -> list[str]:
    return [
        obj.metadata.name,
        str(obj.spec.replicas),
        str(obj.status.replicas),
        str(obj.status.readyReplicas),
        age(obj.metadata.creationTimestamp, now),
        *_template(obj.spec.template),
        selector_text(obj.spec.selector),
    ]


def _service(obj: service_pb2.Service, now: float) -> list[str]:
    return [
        obj.metadata.name,
        obj.spec.type or "ClusterIP",
        obj.spec.clusterIP or NONE,
        external_ip(obj),
        ports_text(obj),
        age(obj.metadata.creationTimestamp, now),
        labels_text(obj.spec.selector),
    ]


def _endpoint_slice(obj: endpointslice_pb2.EndpointSlice, now: float) -> list[str]:
    ports = [str(port.port) if port.HasField("port") else port.name or "*" for port in obj.ports]
    addresses = [address for endpoint in obj.endpoints for address in endpoint.addresses]
    return [
        obj.metadata.name,
        obj.addressType,
        _at_most_three(ports),
        _at_most_three(addresses),
        age(obj.metadata.creationTimestamp, now),
    ]


def _at_most_three(words: list[str]) -> str:
    shown = ",".join(words[:3]) or "<unset>"
    return shown + (f" + {len(words) - 3} more..." if len(words) > 3 else "")


def _config_map(obj: config_pb2.ConfigMap, now: float) -> list[str]:
    count = len(obj.data) + len(obj.binaryData)
    return [obj.metadata.name, str(count), age(obj.metadata.creationTimestamp, now)]


def _secret(obj: config_pb2.Secret, now: float) -> list[str]:
    return [obj.metadata.name, obj.type or "Opaque", str(len(obj.data)), age(obj.metadata.creationTimestamp, now)]


def _namespace(obj: namespace_pb2.Namespace, now: float) -> list[str]:
    return [obj.metadata.name, obj.status.phase or "Active", age(obj.metadata.creationTimestamp, now)]


def _event(obj: event_pb2.Event, now: float) -> list[str]:
    first, last, count = event_times(obj)
    return [
        human(now - last) if last else "<unknown>",
        obj.type,
        obj.reason,
        event_object(obj),
        obj.involvedObject.fieldPath,
        event_source(obj),
        obj.message.strip(),
        human(now - first) if first else "<unknown>",
        str(count),
        obj.metadata.name,
    ]


def event_object(event: event_pb2.Event) -> str:
    """`pod/web`: what an event is about."""
    return f"{event.involvedObject.kind.lower()}/{event.involvedObject.name}"


_WORKLOAD = ("AGE", "+CONTAINERS", "+IMAGES", "+SELECTOR")
TABLES: dict[str, Table] = {
    "Pod": Table(
        ("NAME", "READY", "STATUS", "RESTARTS", "AGE", "+IP", "+NODE", "+NOMINATED NODE", "+READINESS GATES"), _pod
    ),
    "Node": Table(
        (
            *("NAME", "STATUS", "ROLES", "AGE", "VERSION"),
            *("+INTERNAL-IP", "+EXTERNAL-IP", "+OS-IMAGE", "+KERNEL-VERSION", "+CONTAINER-RUNTIME"),
        ),
        _node,
    ),
    "Deployment": Table(("NAME", "READY", "UP-TO-DATE", "AVAILABLE", *_WORKLOAD), _deployment),
    "ReplicaSet": Table(("NAME", "DESIRED", "CURRENT", "READY", *_WORKLOAD), _replica_set),
    "Service": Table(("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "+SELECTOR"), _service),
    "EndpointSlice": Table(("NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"), _endpoint_slice),
    "ConfigMap": Table(("NAME", "DATA", "AGE"), _config_map),
    "Secret": Table(("NAME", "TYPE", "DATA", "AGE"), _secret),
    "Namespace": Table(("NAME", "STATUS", "AGE"), _namespace),
    "Event": Table(
        (
            *("LAST SEEN", "TYPE", "REASON", "OBJECT", "+SUBOBJECT", "+SOURCE", "MESSAGE"),
            *("+FIRST SEEN", "+COUNT", "+NAME"),
        ),
        _event,
    ),
}


def _plain(obj: Any, now: float) -> list[str]:
    return [obj.metadata.name, age(obj.metadata.creationTimestamp, now)]


def table_of(kind_name: str) -> Table:
    """The table of a kind: name and age where it has none of its own."""
    return TABLES.get(kind_name, Table(("NAME", "AGE"), _plain))


def joined(words: Iterable[str]) -> str:
    """Comma separated, `<none>` where there are none."""
    return ",".join(words) or NONE

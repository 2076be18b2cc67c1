"""Workloads, services, config maps, secrets, namespaces and the rest as `describe` shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podctl.describe.pod import describe_template
from podctl.describe.writer import NONE, Writer, controller
from podctl.durations import rfc1123
from podctl.output import tree
from podctl.tables import selector_text
from podplane.manifest import printing

_REVISION = "deployment.kubernetes.io/revision"


def describe_deployment(writer: Writer, obj: Any, replica_sets: Sequence[Any]) -> None:
    """`replica_sets` are those that the deployment owns."""
    spec, status = obj.spec, obj.status
    writer.heading(obj, created=True)
    writer.field(0, "Selector", selector_text(spec.selector))
    writer.field(
        0,
        "Replicas",
        f"{spec.replicas} desired | {status.updatedReplicas} updated | {status.replicas} total | "
        f"{status.availableReplicas} available | {status.unavailableReplicas} unavailable",
    )
    writer.field(0, "StrategyType", spec.strategy.type or "RollingUpdate")
    writer.field(0, "MinReadySeconds", spec.minReadySeconds)
    if spec.strategy.HasField("rollingUpdate"):
        rolling = spec.strategy.rollingUpdate
        texts = f"{_share(rolling.maxUnavailable)} max unavailable, {_share(rolling.maxSurge)} max surge"
        writer.field(0, "RollingUpdateStrategy", texts)
    describe_template(writer, spec.template)
    writer.conditions(status.conditions)
    _replica_sets(writer, replica_sets)


def _share(value: Any) -> str:
    return value.string_value or str(int(value.number_value))


def _replica_sets(writer: Writer, replica_sets: Sequence[Any]) -> None:
    def text(one: Any) -> str:
        return f"{one.metadata.name} ({one.status.replicas}/{one.spec.replicas} replicas created)"

    ordered = sorted(replica_sets, key=lambda one: int(one.metadata.annotations.get(_REVISION) or 0))
    old = [text(one) for one in ordered[:-1]]
    writer.field(0, "OldReplicaSets", ", ".join(old) or NONE)
    writer.field(0, "NewReplicaSet", text(ordered[-1]) if ordered else NONE)


def describe_replica_set(writer: Writer, obj: Any, pods: Sequence[Any]) -> None:
    """`pods` are those that the replica set owns."""
    writer.field(0, "Name", obj.metadata.name)
    writer.field(0, "Namespace", obj.metadata.namespace)
    writer.field(0, "Selector", selector_text(obj.spec.selector))
    writer.pairs(0, "Labels", obj.metadata.labels)
    writer.annotations(0, obj.metadata.annotations)
    if owner := controller(obj):
        writer.field(0, "Controlled By", owner)
    writer.field(0, "Replicas", f"{obj.status.replicas} current / {obj.spec.replicas} desired")
    phases = [pod.status.phase for pod in pods]
    counts = (("Running", "Running"), ("Waiting", "Pending"), ("Succeeded", "Succeeded"), ("Failed", "Failed"))
    writer.field(0, "Pods Status", " / ".join(f"{phases.count(phase)} {word}" for word, phase in counts))
    describe_template(writer, obj.spec.template)
    writer.conditions(obj.status.conditions)


def describe_service(writer: Writer, obj: Any, slices: Sequence[Any]) -> None:
    """`slices` are the service's endpoint slices."""
    spec = obj.spec
    writer.heading(obj)
    writer.pairs(0, "Selector", spec.selector)
    writer.field(0, "Type", spec.type or "ClusterIP")
    if spec.ipFamilyPolicy:
        writer.field(0, "IP Family Policy", spec.ipFamilyPolicy)
    if spec.ipFamilies:
        writer.field(0, "IP Families", ",".join(spec.ipFamilies))
    writer.field(0, "IP", spec.clusterIP or NONE)
    writer.field(0, "IPs", ",".join(spec.clusterIPs) or spec.clusterIP or NONE)
    if addresses := [one.ip or one.hostname for one in obj.status.loadBalancer.ingress]:
        writer.field(0, "LoadBalancer Ingress", ", ".join(addresses))
    if spec.externalName:
        writer.field(0, "External Name", spec.externalName)
    for port in spec.ports:
        _service_port(writer, port, slices)
    writer.field(0, "Session Affinity", spec.sessionAffinity or "None")
    for title, policy in (("External", spec.externalTrafficPolicy), ("Internal", spec.internalTrafficPolicy)):
        if policy:
            writer.field(0, f"{title} Traffic Policy", policy)
    if spec.healthCheckNodePort:
        writer.field(0, "HealthCheck NodePort", str(spec.healthCheckNodePort))


def _service_port(writer: Writer, port: Any, slices: Sequence[Any]) -> None:
    protocol = port.protocol or "TCP"
    writer.field(0, "Port", f"{port.name or '<unset>'}\t{port.port}/{protocol}".replace("\t", "  "))
    target = _share(port.targetPort) if port.HasField("targetPort") else str(port.port)
    writer.field(0, "TargetPort", f"{target}/{protocol}")
    if port.nodePort:
        writer.field(0, "NodePort", f"{port.name or '<unset>'}  {port.nodePort}/{protocol}")
    addresses = [
        f"{address}:{one.port}"
        for endpoints in slices
        for one in endpoints.ports
        if one.name == port.name
        for endpoint in endpoints.endpoints
        if not endpoint.conditions.HasField("ready") or endpoint.conditions.ready
        for address in endpoint.addresses
    ]
    more = f" + {len(addresses) - 3} more..." if len(addresses) > 3 else ""
    writer.field(0, "Endpoints", ",".join(addresses[:3]) + more or NONE)


def describe_config_map(writer: Writer, obj: Any) -> None:
    """With the whole data."""
    writer.heading(obj)
    for text in ("", "Data", "===="):
        writer.line(0, text)
    for key, value in sorted(obj.data.items()):
        for text in (f"{key}:", "----", *value.expandtabs().split("\n"), ""):
            writer.line(0, text)
    for text in ("", "BinaryData", "===="):
        writer.line(0, text)
    for key, content in sorted(obj.binaryData.items()):
        writer.line(0, f"{key}: {len(content)} bytes")
    writer.line(0, "")


def describe_secret(writer: Writer, obj: Any) -> None:
    """Sizes only: a secret's values are never shown here."""
    writer.heading(obj)
    writer.line(0, "")
    writer.field(0, "Type", obj.type or "Opaque")
    for text in ("", "Data", "===="):
        writer.line(0, text)
    for key, content in sorted(obj.data.items()):
        writer.field(0, key, f"{len(content)} bytes")
    writer.line(0, "")


def describe_namespace(writer: Writer, obj: Any) -> None:
    """With the conditions that say why a deletion does not end."""
    writer.heading(obj)
    writer.field(0, "Status", obj.status.phase or "Active")
    if obj.status.conditions:
        writer.line(0, "Conditions:")
        rows = [
            [one.type, one.status, rfc1123(one.lastTransitionTime), one.reason, one.message]
            for one in obj.status.conditions
        ]
        writer.table(1, ("Type", "Status", "LastTransitionTime", "Reason", "Message"), rows)


def describe_any(writer: Writer, obj: Any) -> None:
    """A kind without a form of its own: its heading, then its fields as YAML."""
    writer.heading(obj, created=True)
    rest = {key: value for key, value in tree(obj).items() if key not in ("apiVersion", "kind", "metadata")}
    if rest:
        for text in printing.dump_yaml(rest).rstrip("\n").split("\n"):
            writer.line(0, text)

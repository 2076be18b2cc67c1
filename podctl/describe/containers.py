"""Containers and volumes as `describe` shows them, in pods and in pod templates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from podctl.describe.writer import NONE, Writer
from podctl.durations import rfc1123
from podplane.manifest import printing

_NAME_INDENT = ("  ", "   ")
_VOLUMES = {
    "emptyDir": "EmptyDir (a temporary directory that shares a pod's lifetime)",
    "configMap": "ConfigMap (a volume populated by a ConfigMap)",
    "secret": "Secret (a volume populated by a Secret)",
    "hostPath": "HostPath (bare host directory volume)",
    "nfs": "NFS (an NFS mount that lasts the lifetime of a pod)",
    "downwardAPI": "DownwardAPI (a volume populated by information about the pod)",
    "projected": "Projected (a volume that contains injected data from multiple sources)",
}


def describe_containers(
    writer: Writer, title: str, containers: Sequence[Any], statuses: Iterable[Any], level: int
) -> None:
    """Every container, with its status where it has one; below a template's heading (level 1) names stand closer."""
    if not containers:
        return
    by_name = {status.name: status for status in statuses}
    writer.line(level, f"{title}:")
    for container in containers:
        status = by_name.get(container.name)
        writer.line(0, f"{_NAME_INDENT[level]}{container.name}:")
        _identity(writer, container, status, 2)
        _command(writer, container, 2)
        if status is not None:
            _state(writer, status, 2)
        _resources(writer, container.resources, 2)
        _probes(writer, container, 2)
        _environment(writer, container, 2)
        _mounts(writer, container, 2)


def describe_volumes(writer: Writer, volumes: Sequence[Any], level: int) -> None:
    """Every volume: its source and the source's fields."""
    if not volumes:
        writer.field(level, "Volumes", NONE)
        return
    writer.line(level, "Volumes:")
    for volume in volumes:
        writer.line(0, f"{_NAME_INDENT[level]}{volume.name}:")
        for field, source in volume.ListFields():
            if field.name == "name":
                continue
            writer.field(2, "Type", _VOLUMES.get(field.name) or _title(field.name))
            for key, value in printing.to_dict(source).items():
                writer.field(2, _title(key), _compact(value))


def _title(name: str) -> str:
    return name[0].upper() + name[1:]


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else printing.dump_json(value, None)


def _identity(writer: Writer, container: Any, status: Any, level: int) -> None:
    if status is not None:
        writer.field(level, "Container ID", status.containerID)
    writer.field(level, "Image", container.image)
    if status is not None:
        writer.field(level, "Image ID", status.imageID)
    plural = "s" if len(container.ports) > 1 else ""
    inside = [f"{port.containerPort}/{port.protocol or 'TCP'}" for port in container.ports]
    outside = [f"{port.hostPort}/{port.protocol or 'TCP'}" for port in container.ports]
    writer.field(level, f"Port{plural}", ", ".join(inside) or NONE)
    writer.field(level, f"Host Port{plural}", ", ".join(outside) or NONE)


def _command(writer: Writer, container: Any, level: int) -> None:
    for title, words in (("Command", container.command), ("Args", container.args)):
        if words:
            writer.block(level, title, (line for word in words for line in word.split("\n")))


def _state(writer: Writer, status: Any, level: int) -> None:
    _one_state(writer, "State", status.state, level)
    if status.lastState.HasField("terminated"):
        _one_state(writer, "Last State", status.lastState, level)
    writer.field(level, "Ready", str(status.ready))
    writer.field(level, "Restart Count", status.restartCount)


def _one_state(writer: Writer, title: str, state: Any, level: int) -> None:
    if state.HasField("running"):
        writer.field(level, title, "Running")
        writer.field(level + 1, "Started", rfc1123(state.running.startedAt))
    elif state.HasField("terminated"):
        ended = state.terminated
        writer.field(level, title, "Terminated")
        for name, value in (("Reason", ended.reason), ("Message", ended.message)):
            if value:
                writer.field(level + 1, name, value.replace("\n", " "))
        writer.field(level + 1, "Exit Code", ended.exitCode)
        if ended.signal:
            writer.field(level + 1, "Signal", ended.signal)
        writer.field(level + 1, "Started", rfc1123(ended.startedAt))
        writer.field(level + 1, "Finished", rfc1123(ended.finishedAt))
    else:
        writer.field(level, title, "Waiting")
        for name, value in (("Reason", state.waiting.reason), ("Message", state.waiting.message)):
            if value:
                writer.field(level + 1, name, value.replace("\n", " "))


def _resources(writer: Writer, resources: Any, level: int) -> None:
    for title, amounts in (("Limits", resources.limits), ("Requests", resources.requests)):
        if amounts:
            writer.line(level, f"{title}:")
            for name, amount in sorted(amounts.items()):
                writer.field(level + 1, name, amount)


def _probes(writer: Writer, container: Any, level: int) -> None:
    for title, field in (("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")):
        if container.HasField(field):
            writer.field(level, title, probe_text(getattr(container, field)))


def probe_text(probe: Any) -> str:
    """`http-get http://:8080/ delay=0s timeout=1s period=10s #success=1 #failure=3`."""
    return (
        f"{_action(probe)} delay={probe.initialDelaySeconds}s timeout={probe.timeoutSeconds or 1}s "
        f"period={probe.periodSeconds or 10}s #success={probe.successThreshold or 1} "
        f"#failure={probe.failureThreshold or 3}"
    )


def _action(probe: Any) -> str:
    if probe.HasField("exec"):
        return f"exec [{' '.join(probe.exec.command)}]"
    if probe.HasField("httpGet"):
        get = probe.httpGet
        return f"http-get {(get.scheme or 'HTTP').lower()}://{get.host}:{_port(get.port)}{get.path or '/'}"
    if probe.HasField("tcpSocket"):
        return f"tcp-socket {probe.tcpSocket.host}:{_port(probe.tcpSocket.port)}"
    if probe.HasField("grpc"):
        return f"grpc <pod>:{probe.grpc.port} {probe.grpc.service}"
    return "unknown"


def _port(value: Any) -> str:
    return value.string_value or str(int(value.number_value))


def _environment(writer: Writer, container: Any, level: int) -> None:
    if container.envFrom:
        writer.line(level, "Environment Variables from:")
        for one in container.envFrom:
            word, source = ("Secret", one.secretRef) if one.HasField("secretRef") else ("ConfigMap", one.configMapRef)
            prefix = f" with prefix '{one.prefix}'" if one.prefix else ""
            writer.line(level + 1, f"{source.name}\t{word}{prefix}\tOptional: {str(source.optional).lower()}")
    if not container.env:
        writer.field(level, "Environment", NONE)
        return
    writer.line(level, "Environment:")
    for one in container.env:
        writer.field(level + 1, one.name, _value(one))


def _value(one: Any) -> str:
    source = one.valueFrom
    if source.HasField("fieldRef"):
        return f" ({source.fieldRef.apiVersion or 'v1'}:{source.fieldRef.fieldPath})"
    if source.HasField("resourceFieldRef"):
        return f" ({source.resourceFieldRef.resource})"
    for field, kind in (("configMapKeyRef", "config map"), ("secretKeyRef", "secret")):
        if source.HasField(field):
            key = getattr(source, field)
            return f"<set to the key '{key.key}' of {kind} '{key.name}'>\tOptional: {str(key.optional).lower()}"
    return str(one.value).replace("\n", " ")


def _mounts(writer: Writer, container: Any, level: int) -> None:
    if not container.volumeMounts:
        writer.field(level, "Mounts", NONE)
        return
    writer.line(level, "Mounts:")
    for mount in sorted(container.volumeMounts, key=lambda one: one.mountPath):
        flags = "ro" if mount.readOnly else "rw"
        path = f',path="{mount.subPath}"' if mount.subPath else ""
        writer.line(level + 1, f"{mount.mountPath} from {mount.name} ({flags}{path})")

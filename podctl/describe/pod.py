"""A pod as `describe` shows it, and the pod template of a workload. Pure."""

from __future__ import annotations

from typing import Any

from podctl.describe.containers import describe_containers, describe_volumes
from podctl.describe.writer import NONE, Writer, controller
from podctl.durations import rfc1123, seconds_of
from podplane.duration import human
from podplane.v1 import pod_pb2


def describe_pod(writer: Writer, pod: pod_pb2.Pod, now: float) -> None:
    """Everything but the events."""
    _heading(writer, pod, now)
    writer.field(0, "IP", pod.status.podIP)
    addresses = [f"IP:\t{one.ip}" for one in pod.status.podIPs]
    if addresses:
        writer.block(0, "IPs", addresses)
    else:
        writer.field(0, "IPs", NONE)
    if owner := controller(pod):
        writer.field(0, "Controlled By", owner)
    spec, status = pod.spec, pod.status
    describe_containers(writer, "Init Containers", spec.initContainers, status.initContainerStatuses, 0)
    describe_containers(writer, "Containers", spec.containers, status.containerStatuses, 0)
    _conditions(writer, pod)
    describe_volumes(writer, spec.volumes, 0)
    if status.qosClass:
        writer.field(0, "QoS Class", status.qosClass)
    _placement(writer, spec, 0)


def describe_template(writer: Writer, template: pod_pb2.PodTemplateSpec) -> None:
    """The pod template of a workload."""
    writer.line(0, "Pod Template:")
    writer.pairs(1, "Labels", template.metadata.labels)
    if template.metadata.annotations:
        writer.annotations(1, template.metadata.annotations)
    spec = template.spec
    if spec.serviceAccountName:
        writer.field(1, "Service Account", spec.serviceAccountName)
    describe_containers(writer, "Init Containers", spec.initContainers, (), 1)
    describe_containers(writer, "Containers", spec.containers, (), 1)
    describe_volumes(writer, spec.volumes, 1)
    _placement(writer, spec, 1)


def _heading(writer: Writer, pod: pod_pb2.Pod, now: float) -> None:
    metadata, status = pod.metadata, pod.status
    writer.field(0, "Name", metadata.name)
    writer.field(0, "Namespace", metadata.namespace)
    writer.field(0, "Priority", pod.spec.priority)
    if pod.spec.priorityClassName:
        writer.field(0, "Priority Class Name", pod.spec.priorityClassName)
    writer.field(0, "Service Account", pod.spec.serviceAccountName or "default")
    writer.field(0, "Node", f"{pod.spec.nodeName}/{status.hostIP}" if pod.spec.nodeName else NONE)
    if status.HasField("startTime"):
        writer.field(0, "Start Time", rfc1123(status.startTime))
    writer.pairs(0, "Labels", metadata.labels)
    writer.annotations(0, metadata.annotations)
    if metadata.HasField("deletionTimestamp"):
        lasts = human(max(now - seconds_of(metadata.deletionTimestamp), 0))
        writer.field(0, "Status", f"Terminating (lasts {lasts})")
        writer.field(0, "Termination Grace Period", f"{metadata.deletionGracePeriodSeconds}s")
    else:
        writer.field(0, "Status", status.phase)
    if status.reason:
        writer.field(0, "Reason", status.reason)
    if status.message:
        writer.field(0, "Message", status.message)


def _conditions(writer: Writer, pod: pod_pb2.Pod) -> None:
    """With the reason and message of what is not True, which kubectl leaves to -o yaml."""
    if not pod.status.conditions:
        return
    writer.line(0, "Conditions:")
    writer.line(1, "Type\tStatus")
    for one in pod.status.conditions:
        why = f"\t{one.reason}: {one.message}".rstrip(": ") if one.status != "True" and one.reason else ""
        writer.line(1, f"{one.type}\t{one.status}{why}")


def _placement(writer: Writer, spec: pod_pb2.PodSpec, level: int) -> None:
    writer.pairs(level, "Node-Selectors", spec.nodeSelector)
    tolerations = [toleration_text(one) for one in spec.tolerations]
    writer.field(level, "Tolerations", tolerations[0] if tolerations else NONE)
    for one in tolerations[1:]:
        writer.line(level, f"\t{one}")


def toleration_text(one: Any) -> str:
    """`key=value:NoExecute op=Exists for 300s`."""
    text: str = one.key + (f"={one.value}" if one.value else "") + (f":{one.effect}" if one.effect else "")
    if one.operator == "Exists" and not one.value:
        text += " op=Exists" if text else "op=Exists"
    if one.HasField("tolerationSeconds"):
        text += f" for {one.tolerationSeconds}s"
    return text

"""The values that Kubernetes writes into an object where its writer left them out: pods, workloads, configuration.

Mutators: plain functions over one object, pure, idempotent, safe on objects that validation will refuse. They write
what Kubernetes writes and no more, so that applying a manifest again changes nothing. Services: service_defaults.
"""

from __future__ import annotations

import itertools
from typing import Any

from google.protobuf.message import Message

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.walking import Plans
from podplane import intstr, quantity
from podplane.manifest.schema import Shape
from podplane.qos import qos_class
from podplane.v1 import (
    apps_pb2,
    config_pb2,
    container_pb2,
    endpointslice_pb2,
    namespace_pb2,
    node_pb2,
    pod_pb2,
    volume_pb2,
)

HOST_IMAGE = "host"
_ROLLING = "25%"
_MEMORY_TAINT = "node.kubernetes.io/memory-pressure"
_LOST_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def canonical_quantities(obj: Message, _old: Message | None, _context: AdmissionContext) -> None:
    """Spell every quantity as Kubernetes prints it; what cannot be parsed is left for validation."""
    _canonical(obj)


def pod(obj: pod_pb2.Pod, _old: Message | None, context: AdmissionContext) -> None:
    """A pod's own defaults, then those of its spec."""
    spec = obj.spec
    pod_spec(spec)
    _unset(spec, "enableServiceLinks", True)
    for container in _containers(spec):
        _requests_from_limits(container.resources)
        if spec.hostNetwork:
            _host_ports(container)
    _unset(spec, "priority", 0)
    _empty(spec, "preemptionPolicy", "PreemptLowerPriority")
    _tolerate_lost_nodes(spec, context.settings.toleration_seconds)
    _tolerate_memory_pressure(spec)
    if context.verb == "create":
        obj.status.phase = "Pending"
        obj.status.qosClass = _qos(spec)


def deployment(obj: apps_pb2.Deployment, _old: Message | None, _context: AdmissionContext) -> None:
    """A deployment and its pod template."""
    spec = obj.spec
    _unset(spec, "replicas", 1)
    _unset(spec, "revisionHistoryLimit", 10)
    _unset(spec, "progressDeadlineSeconds", 600)
    _empty(spec.strategy, "type", "RollingUpdate")
    if spec.strategy.type == "RollingUpdate":
        rolling = spec.strategy.rollingUpdate
        for name in ("maxUnavailable", "maxSurge"):
            if not rolling.HasField(name):
                getattr(rolling, name).CopyFrom(intstr.of(_ROLLING))
    if spec.HasField("template"):
        pod_spec(spec.template.spec)


def replica_set(obj: apps_pb2.ReplicaSet, _old: Message | None, _context: AdmissionContext) -> None:
    """A replica set and its pod template."""
    _unset(obj.spec, "replicas", 1)
    if obj.spec.HasField("template"):
        pod_spec(obj.spec.template.spec)


def secret(obj: config_pb2.Secret, _old: Message | None, _context: AdmissionContext) -> None:
    """Fold stringData into data, where it wins, and drop it: it is never stored or read."""
    for key, text in obj.stringData.items():
        obj.data[key] = text.encode()
    obj.ClearField("stringData")
    _empty(obj, "type", "Opaque")


def namespace(obj: namespace_pb2.Namespace, _old: Message | None, context: AdmissionContext) -> None:
    """A namespace: the label with its name, and its phase when it is new."""
    if obj.metadata.name:
        obj.metadata.labels["kubernetes.io/metadata.name"] = obj.metadata.name
    if context.verb == "create":
        if not obj.spec.finalizers:
            obj.spec.finalizers.append("kubernetes")
        obj.status.phase = "Active"


def node(obj: node_pb2.Node, _old: Message | None, _context: AdmissionContext) -> None:
    """podCIDR is the first of podCIDRs."""
    if obj.spec.podCIDR and not obj.spec.podCIDRs:
        obj.spec.podCIDRs.append(obj.spec.podCIDR)
    elif obj.spec.podCIDRs and not obj.spec.podCIDR:
        obj.spec.podCIDR = obj.spec.podCIDRs[0]


def endpoint_slice(obj: endpointslice_pb2.EndpointSlice, _old: Message | None, _context: AdmissionContext) -> None:
    """Ports of a slice have a name, which may be empty, and a protocol."""
    for port in obj.ports:
        _unset(port, "name", "")
        _empty(port, "protocol", "TCP")


def pod_spec(spec: pod_pb2.PodSpec) -> None:
    """What pods and the templates of workloads share."""
    _empty(spec, "restartPolicy", "Always")
    _empty(spec, "dnsPolicy", "ClusterFirst")
    _empty(spec, "schedulerName", "default-scheduler")
    _unset(spec, "terminationGracePeriodSeconds", 30)
    spec.securityContext.SetInParent()
    account = spec.serviceAccountName or spec.serviceAccount
    if account:
        spec.serviceAccountName = spec.serviceAccount = account
    for volume in spec.volumes:
        _volume(volume)
    for container in _containers(spec):
        _container(container)


def pull_policy(image: str) -> str:
    """Always for `:latest` or no tag, else IfNotPresent; a digest is a version, the node's own filesystem no image."""
    if image == HOST_IMAGE or "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _containers(spec: pod_pb2.PodSpec) -> itertools.chain[container_pb2.Container]:
    return itertools.chain(spec.initContainers, spec.containers)


def _container(container: container_pb2.Container) -> None:
    _empty(container, "imagePullPolicy", pull_policy(container.image))
    _empty(container, "terminationMessagePath", "/dev/termination-log")
    _empty(container, "terminationMessagePolicy", "File")
    container.resources.SetInParent()
    for port in container.ports:
        _empty(port, "protocol", "TCP")
    for variable in container.env:
        if variable.valueFrom.HasField("fieldRef"):
            _empty(variable.valueFrom.fieldRef, "apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.HasField(name):
            _probe(getattr(container, name))
    for name in ("postStart", "preStop"):
        if container.lifecycle.HasField(name):  # type: ignore[arg-type]
            _http_get(getattr(container.lifecycle, name))


def _probe(probe: container_pb2.Probe) -> None:
    _empty(probe, "timeoutSeconds", 1)
    _empty(probe, "periodSeconds", 10)
    _empty(probe, "successThreshold", 1)
    _empty(probe, "failureThreshold", 3)
    if probe.HasField("grpc"):
        _unset(probe.grpc, "service", "")
    _http_get(probe)


def _http_get(handler: container_pb2.Probe | container_pb2.LifecycleHandler) -> None:
    if handler.HasField("httpGet"):
        _empty(handler.httpGet, "path", "/")
        _empty(handler.httpGet, "scheme", "HTTP")


def _volume(volume: volume_pb2.Volume) -> None:
    present = [field.name for field, _ in volume.ListFields() if field.name != "name"]
    if not present:
        volume.emptyDir.SetInParent()
    for name in present:
        source = getattr(volume, name)
        if "defaultMode" in source.DESCRIPTOR.fields_by_name:
            _unset(source, "defaultMode", 0o644)
    if volume.HasField("hostPath"):
        _unset(volume.hostPath, "type", "")
    for item in volume.downwardAPI.items:
        _downward_item(item)
    for projection in volume.projected.sources:
        for item in projection.downwardAPI.items:
            _downward_item(item)
        if projection.HasField("serviceAccountToken"):
            _unset(projection.serviceAccountToken, "expirationSeconds", 3600)


def _downward_item(item: volume_pb2.DownwardAPIVolumeFile) -> None:
    if item.HasField("fieldRef"):
        _empty(item.fieldRef, "apiVersion", "v1")


def _host_ports(container: container_pb2.Container) -> None:
    for port in container.ports:
        _empty(port, "hostPort", port.containerPort)


def _requests_from_limits(resources: container_pb2.ResourceRequirements) -> None:
    for name, limit in resources.limits.items():
        if name not in resources.requests:
            resources.requests[name] = limit


def _tolerate_lost_nodes(spec: pod_pb2.PodSpec, seconds: int) -> None:
    """Unless the pod says otherwise: stay on a node that is not ready or silent, but only so long."""
    for key in _LOST_NODE_TAINTS:
        if not any(one.key in ("", key) and one.effect in ("", "NoExecute") for one in spec.tolerations):
            spec.tolerations.add(key=key, operator="Exists", effect="NoExecute", tolerationSeconds=seconds)


def _tolerate_memory_pressure(spec: pod_pb2.PodSpec) -> None:
    """What a pod has requested it gets: only best-effort pods are kept from a node that is short of memory."""
    if _qos(spec) not in ("Burstable", "Guaranteed"):
        return
    if not any(one.key in ("", _MEMORY_TAINT) and one.effect in ("", "NoSchedule") for one in spec.tolerations):
        spec.tolerations.add(key=_MEMORY_TAINT, operator="Exists", effect="NoSchedule")


def _qos(spec: pod_pb2.PodSpec) -> str:
    try:
        return qos_class(spec)
    except ValueError:  # a quantity that validation refuses
        return ""


def _empty(message: Message, name: str, value: Any) -> None:
    """A default where Kubernetes takes the zero value for unset."""
    if not getattr(message, name):
        setattr(message, name, value)


def _unset(message: Message, name: str, value: Any) -> None:
    """A default where zero is a wish of its own."""
    if not message.HasField(name):
        setattr(message, name, value)


_QUANTITIES = Plans(lambda _descriptor, field: field.shape is Shape.QUANTITY)


def _canonical(message: Message) -> None:
    plan = _QUANTITIES.of(message)
    for step in plan.wanted:
        value = step.value(message)
        if value is None:
            continue
        if step.is_map:
            for key in list(value):
                value[key] = _spelled(value[key])
        else:
            setattr(message, step.name, _spelled(value))
    for step in plan.nested:
        value = step.value(message)
        for item in () if value is None else (value,) if step.single else value:
            _canonical(item)


def _spelled(text: str) -> str:
    try:
        return quantity.canonical(text)
    except ValueError:
        return text

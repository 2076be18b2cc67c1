"""Which config maps and secrets a pod refers to, read off its spec. Pure.

The agent gets exactly these, and a node may read exactly these.
"""

from __future__ import annotations

from collections.abc import Iterator

from podplane.v1 import container_pb2, pod_pb2, volume_pb2

Reference = tuple[str, str, str]
"""(kind name, namespace, name): ("Secret", "default", "db-password")."""


def references(pod: pod_pb2.Pod) -> frozenset[Reference]:
    """Every ConfigMap and Secret that the pod's volumes, environments and image pulls name."""
    namespace, spec = pod.metadata.namespace, pod.spec
    found: set[tuple[str, str]] = {("Secret", one.name) for one in spec.imagePullSecrets}
    for volume in spec.volumes:
        found.update(_of_volume(volume))
    for container in (*spec.initContainers, *spec.containers):
        found.update(_of_environment(container))
    return frozenset((kind, namespace, name) for kind, name in found if name)


def _of_volume(volume: volume_pb2.Volume) -> Iterator[tuple[str, str]]:
    if volume.HasField("configMap"):
        yield "ConfigMap", volume.configMap.name
    if volume.HasField("secret"):
        yield "Secret", volume.secret.secretName
    for source in volume.projected.sources:
        if source.HasField("configMap"):
            yield "ConfigMap", source.configMap.name
        if source.HasField("secret"):
            yield "Secret", source.secret.name


def _of_environment(container: container_pb2.Container) -> Iterator[tuple[str, str]]:
    for source in container.envFrom:
        if source.HasField("configMapRef"):
            yield "ConfigMap", source.configMapRef.name
        if source.HasField("secretRef"):
            yield "Secret", source.secretRef.name
    for variable in container.env:
        if variable.valueFrom.HasField("configMapKeyRef"):
            yield "ConfigMap", variable.valueFrom.configMapKeyRef.name
        if variable.valueFrom.HasField("secretKeyRef"):
            yield "Secret", variable.valueFrom.secretKeyRef.name

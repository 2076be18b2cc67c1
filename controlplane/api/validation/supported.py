"""What this version does not support yet, in one table, and the walk that refuses it by field.

To support something, take its row out. Pure. Parts of Kubernetes that stay refused for good (externalIPs) are not
here but with their kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.problems import Problems, shown
from podplane.errors import FieldError
from podplane.manifest.schema import Field, Shape, fields


@dataclass(frozen=True, slots=True)
class Refused:
    """Which values of a field are refused: those listed, or all but the allowed ones and, unless `zero`, the zero."""

    values: tuple[object, ...] | None = None
    allowed: tuple[object, ...] = ()
    zero: bool = False

    def covers(self, value: object) -> bool:
        """True where this scalar is refused; messages and lists of them are refused by being there."""
        if self.values is not None:
            return value in self.values
        return value not in self.allowed and (bool(value) or self.zero)


def _only(*allowed: object) -> Refused:
    return Refused(allowed=allowed)


def _not(*values: object) -> Refused:
    return Refused(values=values)


ANY = Refused()
ANY_EVEN_ZERO = Refused(zero=True)

UNSUPPORTED: Mapping[str, Refused] = {
    # Pods
    "PodSpec.ephemeralContainers": ANY,
    "PodSpec.resourceClaims": ANY,
    "PodSpec.hostUsers": _not(False),
    "PodSpec.hostNetwork": ANY,
    "PodSpec.hostPID": ANY,
    "PodSpec.hostIPC": ANY,
    "PodSpec.shareProcessNamespace": ANY,
    "PodSpec.topologySpreadConstraints": ANY,
    "PodSpec.schedulingGates": ANY,
    "PodSpec.readinessGates": ANY,
    "PodSpec.overhead": ANY,
    "PodSpec.runtimeClassName": ANY,
    "PodSpec.priorityClassName": ANY,
    "PodSpec.setHostnameAsFQDN": ANY,
    "PodSpec.serviceAccountName": _only("default"),
    "PodSpec.automountServiceAccountToken": ANY,
    "PodOS.name": _not("windows"),
    "Affinity.podAffinity": ANY,
    "Affinity.podAntiAffinity": ANY,
    # Containers
    "Container.livenessProbe": ANY,
    "Container.readinessProbe": ANY,
    "Container.startupProbe": ANY,
    "Container.lifecycle": ANY,
    "Container.restartPolicy": ANY,
    "Container.volumeDevices": ANY,
    "Container.resizePolicy": ANY,
    "ResourceRequirements.claims": ANY,
    "ContainerPort.protocol": _not("SCTP"),
    "ContainerPort.hostPort": ANY,
    "ContainerPort.hostIP": ANY,
    "VolumeMount.subPath": ANY,
    "VolumeMount.subPathExpr": ANY,
    "VolumeMount.recursiveReadOnly": _only("Disabled"),
    # Security contexts
    "PodSecurityContext.seLinuxOptions": ANY,
    "PodSecurityContext.appArmorProfile": ANY,
    "PodSecurityContext.windowsOptions": ANY,
    "PodSecurityContext.fsGroup": ANY_EVEN_ZERO,
    "PodSecurityContext.fsGroupChangePolicy": ANY,
    "PodSecurityContext.supplementalGroupsPolicy": _only("Merge"),
    "SecurityContext.seLinuxOptions": ANY,
    "SecurityContext.appArmorProfile": ANY,
    "SecurityContext.windowsOptions": ANY,
    "SecurityContext.procMount": _only("Default"),
    # Volumes: emptyDir, hostPath, configMap and secret are supported
    "Volume.awsElasticBlockStore": ANY,
    "Volume.azureDisk": ANY,
    "Volume.azureFile": ANY,
    "Volume.cephfs": ANY,
    "Volume.cinder": ANY,
    "Volume.csi": ANY,
    "Volume.downwardAPI": ANY,
    "Volume.ephemeral": ANY,
    "Volume.fc": ANY,
    "Volume.flexVolume": ANY,
    "Volume.flocker": ANY,
    "Volume.gcePersistentDisk": ANY,
    "Volume.gitRepo": ANY,
    "Volume.glusterfs": ANY,
    "Volume.image": ANY,
    "Volume.iscsi": ANY,
    "Volume.nfs": ANY,
    "Volume.persistentVolumeClaim": ANY,
    "Volume.photonPersistentDisk": ANY,
    "Volume.portworxVolume": ANY,
    "Volume.projected": ANY,
    "Volume.quobyte": ANY,
    "Volume.rbd": ANY,
    "Volume.scaleIO": ANY,
    "Volume.storageos": ANY,
    "Volume.vsphereVolume": ANY,
    # Services
    "ServiceSpec.type": _not("LoadBalancer", "ExternalName"),
    "ServiceSpec.sessionAffinity": _not("ClientIP"),
    "ServiceSpec.externalTrafficPolicy": _not("Local"),
    "ServiceSpec.internalTrafficPolicy": _not("Local"),
    "ServiceSpec.trafficDistribution": ANY,
    "ServiceSpec.loadBalancerIP": ANY,
    "ServiceSpec.loadBalancerClass": ANY,
    "ServiceSpec.loadBalancerSourceRanges": ANY,
    "ServiceSpec.ipFamilies": _not("IPv6"),
    "ServiceSpec.ipFamilyPolicy": _not("RequireDualStack"),
    "ServicePort.protocol": _not("SCTP"),
    # Others
    "EndpointSlice.addressType": _not("IPv6", "FQDN"),
    "NodeSpec.configSource": ANY,
}
"""Message and field (Kubernetes' type names) to what of it is refused."""

_UNCHECKED = ("metadata", "status")


def supported(obj: Message, _old: Message | None, _context: AdmissionContext) -> list[FieldError]:
    """A `Forbidden: ... not supported` for everything that the object wishes of UNSUPPORTED."""
    found = Problems()
    _walk(obj, "", found, skip=_UNCHECKED)
    return found


def _walk(message: Message, path: str, found: Problems, skip: tuple[str, ...] = ()) -> None:
    nested, refused = _plan(message.DESCRIPTOR)
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if name in skip:
            continue
        if name in refused:
            _refuse(refused[name], value, f"{path}{name}", found)
        elif name in nested:
            for at, one in _items(nested[name], value, f"{path}{name}"):
                _walk(one, f"{at}.", found)


def _refuse(refused: Refused, value: Any, path: str, found: Problems) -> None:
    if isinstance(value, Message) or (not isinstance(value, str | int) and refused.values is None):
        found.forbidden(path, "not supported by this version")
        return
    for one in (value,) if isinstance(value, str | int) else value:
        if refused.covers(one):
            found.forbidden(path, f"{shown(one)} is not supported by this version")


def _items(field: Field, value: Any, path: str) -> Iterator[tuple[str, Message]]:
    if field.is_list:
        yield from ((f"{path}[{index}]", one) for index, one in enumerate(value))
    else:
        yield path, value


@cache
def _plan(descriptor: Descriptor) -> tuple[dict[str, Field], dict[str, Refused]]:
    """The fields below which something is refused, and those that have a row themselves."""
    known = fields(descriptor)
    refused = {name: UNSUPPORTED[key] for name in known if (key := f"{descriptor.name}.{name}") in UNSUPPORTED}
    nested = {
        name: field
        for name, field in known.items()
        if name not in refused and _is_message(field) and field.message is not None and any(_plan(field.message))
    }
    return nested, refused


def _is_message(field: Field) -> bool:
    return field.shape is Shape.MESSAGE and not field.is_map

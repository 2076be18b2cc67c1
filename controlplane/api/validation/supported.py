"""What this version does not support yet, in one table, and the walk that refuses it by field.

To support something, take its row out. Pure. Parts of Kubernetes that stay refused for good (externalIPs) are not
here but with their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.problems import Problems, shown
from controlplane.api.walking import Plans
from podplane.errors import FieldError


@dataclass(frozen=True, slots=True)
class Refused:
    """Which values of a field are refused: those listed, or all but the allowed ones and the zero."""

    values: tuple[object, ...] | None = None
    allowed: tuple[object, ...] = ()

    def covers(self, value: object) -> bool:
        """True where this scalar is refused; messages and lists of them are refused by being there."""
        if self.values is not None:
            return value in self.values
        return value not in self.allowed and bool(value)


def _only(*allowed: object) -> Refused:
    return Refused(allowed=allowed)


def _not(*values: object) -> Refused:
    return Refused(values=values)


ANY = Refused()

UNSUPPORTED: Mapping[str, Refused] = {
    # Pods
    "PodSpec.ephemeralContainers": ANY,
    "PodSpec.resourceClaims": ANY,
    "PodSpec.hostUsers": _not(False),
    "PodSpec.topologySpreadConstraints": ANY,
    "PodSpec.schedulingGates": ANY,
    "PodSpec.readinessGates": ANY,
    "PodSpec.overhead": ANY,
    "PodSpec.runtimeClassName": ANY,
    "PodSpec.priorityClassName": ANY,
    "PodSpec.serviceAccountName": _only("default"),
    "PodSpec.automountServiceAccountToken": ANY,
    "PodOS.name": _not("windows"),
    "Affinity.podAffinity": ANY,
    "Affinity.podAntiAffinity": ANY,
    # Containers
    "LifecycleHandler.tcpSocket": ANY,
    "Container.volumeDevices": ANY,
    "Container.resizePolicy": ANY,
    "ResourceRequirements.claims": ANY,
    "ContainerPort.protocol": _not("SCTP"),
    "VolumeMount.recursiveReadOnly": _only("Disabled"),
    # Security contexts
    "PodSecurityContext.seLinuxOptions": ANY,
    "PodSecurityContext.appArmorProfile": ANY,
    "PodSecurityContext.windowsOptions": ANY,
    "SecurityContext.seLinuxOptions": ANY,
    "SecurityContext.appArmorProfile": ANY,
    "SecurityContext.windowsOptions": ANY,
    "SecurityContext.procMount": _only("Default"),
    # Volumes: emptyDir, hostPath, nfs, configMap, secret, downwardAPI and projected are supported
    "Volume.awsElasticBlockStore": ANY,
    "Volume.azureDisk": ANY,
    "Volume.azureFile": ANY,
    "Volume.cephfs": ANY,
    "Volume.cinder": ANY,
    "Volume.csi": ANY,
    "Volume.ephemeral": ANY,
    "Volume.fc": ANY,
    "Volume.flexVolume": ANY,
    "Volume.flocker": ANY,
    "Volume.gcePersistentDisk": ANY,
    "Volume.gitRepo": ANY,
    "Volume.glusterfs": ANY,
    "Volume.image": ANY,
    "Volume.iscsi": ANY,
    "Volume.persistentVolumeClaim": ANY,
    "Volume.photonPersistentDisk": ANY,
    "Volume.portworxVolume": ANY,
    "Volume.quobyte": ANY,
    "Volume.rbd": ANY,
    "Volume.scaleIO": ANY,
    "Volume.storageos": ANY,
    "Volume.vsphereVolume": ANY,
    "VolumeProjection.serviceAccountToken": ANY,
    "VolumeProjection.clusterTrustBundle": ANY,
    # Services
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


_PLANS = Plans(lambda descriptor, field: f"{descriptor.name}.{field.name}" in UNSUPPORTED)


def _walk(message: Message, path: str, found: Problems, skip: tuple[str, ...] = ()) -> None:
    plan = _PLANS.of(message)
    for step in plan.wanted:
        value = step.value(message)
        if value is not None:
            _refuse(UNSUPPORTED[f"{message.DESCRIPTOR.name}.{step.name}"], value, f"{path}{step.name}", found)
    for step in plan.nested:
        value = None if step.name in skip else step.value(message)
        if value is None:
            continue
        if step.single:
            _walk(value, f"{path}{step.name}.", found)
            continue
        for index, one in enumerate(value):
            _walk(one, f"{path}{step.name}[{index}].", found)


def _refuse(refused: Refused, value: Any, path: str, found: Problems) -> None:
    if isinstance(value, Message) or (not isinstance(value, str | int) and refused.values is None):
        found.forbidden(path, "not supported by this version")
        return
    for one in (value,) if isinstance(value, str | int) else value:
        if refused.covers(one):
            found.forbidden(path, f"{shown(one)} is not supported by this version")

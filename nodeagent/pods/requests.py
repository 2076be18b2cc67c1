"""A container of a spec to the request that the runtime gets: everything resolved, every default made explicit.

Pure: compose.py looks up and puts together. An imagePullSecret that cannot be read is as good as absent (the kubelet
does the same): the registry then says what it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nodeagent.pods.resources import amount, container_request, pod_limit, pod_request
from nodeagent.pods.state import PodState
from nodeagent.runtime.credentials import Login
from nodeagent.types import Resources, SandboxRequest, Security
from podplane.qos import qos_class
from podplane.v1.config_pb2 import Secret
from podplane.v1.container_pb2 import Container, SeccompProfile
from podplane.v1.pod_pb2 import Pod

LOWEST_OOM_SCORE = -997
_SCORES = {"Guaranteed": LOWEST_OOM_SCORE, "BestEffort": 1000}


def spec_of(state: PodState, name: str) -> Container:
    """The container of that name in the newest spec."""
    spec = state.pod.spec
    return next(container for container in (*spec.initContainers, *spec.containers) if container.name == name)


def pull_policy(container: Container) -> str:
    """imagePullPolicy, or Kubernetes' default for the reference: Always for :latest, else IfNotPresent."""
    if container.imagePullPolicy:
        return container.imagePullPolicy
    tag = container.image.rpartition("/")[2].partition(":")[2]
    return "Always" if "@" not in container.image and tag in ("", "latest") else "IfNotPresent"


def pull_logins(pod: Pod, secrets: Mapping[tuple[str, str], Secret]) -> tuple[tuple[Login, ...], tuple[str, ...]]:
    """The logins that the pod's imagePullSecrets hold, in their order; and the names of those that are not there."""
    logins: list[Login] = []
    absent: list[str] = []
    for reference in pod.spec.imagePullSecrets:
        secret = secrets.get((pod.metadata.namespace, reference.name))
        if secret is None:
            absent.append(reference.name)
            continue
        whole = _json(secret.data.get(".dockerconfigjson", b"")).get("auths", {})
        for found in (whole, _json(secret.data.get(".dockercfg", b""))):
            if isinstance(found, dict):
                logins += [(key, entry) for key, entry in found.items() if isinstance(entry, dict)]
    return tuple(logins), tuple(absent)


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def sandbox(pod: Pod, attempt: int, hostname: str, address: str, cgroup: str) -> SandboxRequest:
    """The pod's sandbox; `address` is empty with hostNetwork, `cgroup` the pod's."""
    spec = pod.spec
    return SandboxRequest(
        pod_uid=pod.metadata.uid,
        attempt=attempt,
        hostname=hostname,
        address=address or None,
        host_network=spec.hostNetwork,
        host_ipc=spec.hostIPC,
        pause_cgroup=f"{cgroup}/pause" if spec.shareProcessNamespace else "",
        sysctls={sysctl.name: sysctl.value for sysctl in spec.securityContext.sysctls},
    )


def pod_cgroup(root: str, state: PodState) -> str:
    """<root>/pod<uid> for a guaranteed pod, <root>/<qos>/pod<uid> for others: what is promised competes at the top."""
    qos = state.qos
    return f"{root}/pod{state.uid}" if qos == "Guaranteed" else f"{root}/{qos.lower()}/pod{state.uid}"


def cgroup(root: str, state: PodState, name: str, attempt: int) -> str:
    """A container's, in its pod's: <container>_<attempt>."""
    return f"{pod_cgroup(root, state)}/{name}_{attempt}"


def resources(container: Container) -> Resources:
    """What the container's cgroup enforces."""

    def of(name: str, text: str) -> int | None:
        return amount(name, text) or None

    limits = container.resources.limits
    return Resources(
        cpu_request=of("cpu", container_request(container, "cpu")),
        cpu_limit=of("cpu", limits.get("cpu", "")),
        memory_request=of("memory", container_request(container, "memory")),
        memory_limit=of("memory", limits.get("memory", "")),
    )


def pod_resources(pod: Pod) -> Resources:
    """What the pod's cgroup enforces on its containers together."""
    return Resources(
        cpu_request=pod_request(pod.spec, "cpu"),
        cpu_limit=pod_limit(pod.spec, "cpu"),
        memory_request=pod_request(pod.spec, "memory"),
        memory_limit=pod_limit(pod.spec, "memory"),
    )


def oom_score_adj(pod: Pod, container: Container, capacity: int) -> int:
    """As the kubelet: Burstable between, by the share of the node's memory (bytes) that is requested.

    A sidecar goes no sooner than the least of the apps that it serves.
    """
    qos = qos_class(pod.spec)
    if qos in _SCORES:
        return _SCORES[qos]
    request = amount("memory", container_request(container, "memory"))
    if container.restartPolicy == "Always":
        apps = (amount("memory", container_request(app, "memory")) for app in pod.spec.containers)
        request = max(request, min(apps, default=0))
    return max(3, min(999, 1000 - 1000 * request // max(capacity, 1)))


def security(pod: Pod, container: Container) -> Security:
    """The container's securityContext with the pod's folded in."""
    shared, own = pod.spec.securityContext, container.securityContext

    def pick(field: str) -> int | None:
        for context in (own, shared):
            if context.HasField(field):  # type: ignore[arg-type]
                return int(getattr(context, field))
        return None

    groups = list(shared.supplementalGroups)
    if shared.HasField("fsGroup") and shared.fsGroup not in groups:
        groups.append(shared.fsGroup)
    return Security(
        uid=pick("runAsUser"),
        gid=pick("runAsGroup"),
        supplemental_groups=tuple(groups),
        only_these_groups=shared.supplementalGroupsPolicy == "Strict",
        run_as_non_root=bool(pick("runAsNonRoot")),
        privileged=own.privileged,
        allow_privilege_escalation=own.allowPrivilegeEscalation,
        read_only_root=own.readOnlyRootFilesystem,
        add_capabilities=tuple(own.capabilities.add),
        drop_capabilities=tuple(own.capabilities.drop),
        seccomp=_seccomp(next(_profiles(pod, container), None)),
        unmasked_proc=own.procMount == "Unmasked",
    )


def _profiles(pod: Pod, container: Container) -> Iterator[SeccompProfile]:
    for context in (container.securityContext, pod.spec.securityContext):
        if context.HasField("seccompProfile"):
            yield context.seccompProfile


def _seccomp(profile: SeccompProfile | None) -> str:
    if profile is None:
        return "RuntimeDefault"
    return f"localhost/{profile.localhostProfile}" if profile.type == "Localhost" else profile.type

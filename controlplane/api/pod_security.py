"""Pod Security Standards: what a namespace's level lets its pods ask for. Pure.

A namespace says its level by the label `pod-security.kubernetes.io/enforce` (privileged where it says none), and may
pin the version of the standard. The checks, their order and their words are those of Kubernetes' PodSecurity admission
(k8s.io/pod-security-admission); `image: host`, which Kubernetes does not know, needs the level privileged. Fields that
no pod may have here (SELinux, AppArmor, Windows) are refused before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from controlplane.api.defaults import HOST_IMAGE
from podplane.v1 import container_pb2, pod_pb2

PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
LEVELS = ("privileged", "baseline", "restricted")
OLDEST, LATEST = 25, 1_000_000
"""Minor versions of Kubernetes. What is newer than we know is judged as latest, as Kubernetes does."""

_BASELINE_CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_RESTRICTED_VOLUMES = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced": 0,
    "net.ipv4.ip_local_port_range": 0,
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0,
    "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29,
    "net.ipv4.tcp_fin_timeout": 29,
    "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29,
    "net.ipv4.tcp_rmem": 32,
    "net.ipv4.tcp_wmem": 32,
}
"""Sysctl to the minor version that allowed it."""


class Finding(NamedTuple):
    """Why a pod is not of a level: `reason (detail)`."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The level that a namespace enforces, and by which version of the standard."""

    level: str
    version: str

    @property
    def minor(self) -> int:
        return LATEST if self.version == "latest" else int(self.version.removeprefix("v1."))


def policy(labels: Mapping[str, str]) -> Policy:
    """What the labels of a namespace say; one that says nothing lets everything pass."""
    level, version = labels.get(f"{PREFIX}enforce", ""), labels.get(f"{PREFIX}enforce-version", "")
    return Policy(level or "privileged", version or "latest")


def label_problems(labels: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(label, value, what is wrong with it) for the labels that say a level or a version."""
    for mode in MODES:
        level, version = f"{PREFIX}{mode}", f"{PREFIX}{mode}-version"
        if labels.get(level, LEVELS[0]) not in LEVELS:
            yield level, labels[level], f"must be one of {', '.join(LEVELS)}"
        pinned = labels.get(version, "latest")
        match = re.fullmatch(r"v1\.(0|[1-9][0-9]{0,4})", pinned)
        if pinned != "latest" and match is None:
            yield version, pinned, 'must be "latest" or "v1.x"'
        elif match is not None and int(match[1]) < OLDEST:
            yield version, pinned, f"versions before v1.{OLDEST} are not supported"


def violation(enforced: Policy, pod: pod_pb2.Pod) -> str:
    """Why a pod may not be in a namespace of this policy; empty where it may."""
    checks = _CHECKS.get(enforced.level, ())
    found = [finding for check in checks if (finding := check(pod.spec, enforced.minor)) is not None]
    if not found:
        return ""
    listed = ", ".join(f"{item.reason} ({item.detail})" for item in found)
    return f'violates PodSecurity "{enforced.level}:{enforced.version}": {listed}'


# ── baseline ─────────────────────────────────────────────────────────────────────────────────────────────────────

Check = Callable[[pod_pb2.PodSpec, int], Finding | None]


def _containers(spec: pod_pb2.PodSpec) -> list[container_pb2.Container]:
    return [*spec.initContainers, *spec.containers]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _named(names: Sequence[str], word: str = "container") -> str:
    return f"{word}{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _any(
    spec: pod_pb2.PodSpec, is_bad: Callable[[container_pb2.Container], bool], reason: str, words: str
) -> Finding | None:
    bad = [container.name for container in _containers(spec) if is_bad(container)]
    return Finding(reason, f"{_named(bad)} {words}") if bad else None


def _added(spec: pod_pb2.PodSpec, allowed: Collection[str]) -> tuple[list[str], list[str]]:
    """The containers that add capabilities which are not allowed, and these."""
    extra = {
        container.name: set(container.securityContext.capabilities.add) - set(allowed)
        for container in _containers(spec)
    }
    return [name for name, added in extra.items() if added], sorted(set().union(*extra.values()))


def _capabilities(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    bad, added = _added(spec, _BASELINE_CAPABILITIES)
    if not bad:
        return None
    words = f"{_named(bad)} must not include {_quoted(added)} in securityContext.capabilities.add"
    return Finding("non-default capabilities", words)


def _host_namespaces(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if getattr(spec, name)]
    return Finding("host namespaces", ", ".join(f"{name}=true" for name in shared)) if shared else None


def _host_paths(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    bad = [volume.name for volume in spec.volumes if volume.HasField("hostPath")]
    return Finding("hostPath volumes", _named(bad, "volume")) if bad else None


def _host_ports(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    bad = {container.name: {port.hostPort for port in container.ports} - {0} for container in _containers(spec)}
    names = [name for name, ports in bad.items() if ports]
    if not names:
        return None
    ports = sorted(str(port) for port in set().union(*bad.values()))
    uses = f"{'use' if len(names) > 1 else 'uses'} hostPort{'s' if len(ports) > 1 else ''}"
    return Finding("hostPort", f"{_named(names)} {uses} {', '.join(ports)}")


def _privileged(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    words = "must not set securityContext.privileged=true"
    return _any(spec, lambda one: one.securityContext.privileged, "privileged", words)


def _proc_mount(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    words = 'must not set securityContext.procMount to "Unmasked"'
    return _any(spec, lambda one: one.securityContext.procMount == "Unmasked", "procMount", words)


def _seccomp(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    details = list(_unconfined(spec))
    return Finding("seccompProfile", ", ".join(details)) if details else None


def _unconfined(spec: pod_pb2.PodSpec) -> Iterator[str]:
    words = 'must not set securityContext.seccompProfile.type to "Unconfined"'
    bad = [one.name for one in _containers(spec) if one.securityContext.seccompProfile.type == "Unconfined"]
    if spec.securityContext.seccompProfile.type == "Unconfined":
        yield f"pod {words}"
    if bad:
        yield f"{_named(bad)} {words}"


def _sysctls(spec: pod_pb2.PodSpec, minor: int) -> Finding | None:
    names = [sysctl.name.replace("/", ".") for sysctl in spec.securityContext.sysctls]
    bad = [name for name in names if _SYSCTLS.get(name, LATEST + 1) > minor]
    return Finding("forbidden sysctls", ", ".join(bad)) if bad else None


def _host_image(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    return _any(spec, lambda one: one.image == HOST_IMAGE, "host image", f'must not use the image "{HOST_IMAGE}"')


# ── restricted ───────────────────────────────────────────────────────────────────────────────────────────────────


def _escalation(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    words = "must set securityContext.allowPrivilegeEscalation=false"

    def is_bad(one: container_pb2.Container) -> bool:
        context = one.securityContext
        return not context.HasField("allowPrivilegeEscalation") or context.allowPrivilegeEscalation

    return _any(spec, is_bad, "allowPrivilegeEscalation != false", words)


def _no_capabilities(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    keeping = [one.name for one in _containers(spec) if "ALL" not in one.securityContext.capabilities.drop]
    adding, added = _added(spec, ("NET_BIND_SERVICE",))
    details = []
    if keeping:
        details.append(f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        details.append(f"{_named(adding)} must not include {_quoted(added)} in securityContext.capabilities.add")
    return Finding("unrestricted capabilities", "; ".join(details)) if details else None


def _volume_types(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    kinds = {volume.name: volume.ListFields()[-1][0].name for volume in spec.volumes}
    bad = [name for name, kind in kinds.items() if kind not in _RESTRICTED_VOLUMES]
    if not bad:
        return None
    types = sorted({kinds[name] for name in bad})
    uses = f"{'use' if len(bad) > 1 else 'uses'} restricted volume type{'s' if len(types) > 1 else ''}"
    return Finding("restricted volume types", f"{_named(bad, 'volume')} {uses} {_quoted(types)}")


def _non_root(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    pod = spec.securityContext.HasField("runAsNonRoot")
    contexts = {one.name: one.securityContext for one in _containers(spec)}
    bad = [name for name, one in contexts.items() if one.HasField("runAsNonRoot") and not one.runAsNonRoot]
    silent = [name for name, one in contexts.items() if not one.HasField("runAsNonRoot")]
    details = []
    if pod and not spec.securityContext.runAsNonRoot:
        details.append("pod must not set securityContext.runAsNonRoot=false")
    if bad:
        details.append(f"{_named(bad)} must not set securityContext.runAsNonRoot=false")
    if not details and silent and not pod:
        details.append(f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true")
    return Finding("runAsNonRoot != true", ", ".join(details)) if details else None


def _user(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    def is_root(context: container_pb2.SecurityContext | pod_pb2.PodSecurityContext) -> bool:
        return context.HasField("runAsUser") and context.runAsUser == 0

    bad = [one.name for one in _containers(spec) if is_root(one.securityContext)]
    details = ["pod must not set runAsUser=0"] if is_root(spec.securityContext) else []
    details += [f"{_named(bad)} must not set runAsUser=0"] if bad else []
    return Finding("runAsUser=0", ", ".join(details)) if details else None


def _some_seccomp(spec: pod_pb2.PodSpec, _minor: int) -> Finding | None:
    details = list(_unconfined(spec))
    silent = [one.name for one in _containers(spec) if not one.securityContext.seccompProfile.type]
    if not details and silent and not spec.securityContext.seccompProfile.type:
        words = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        details.append(f"pod or {_named(silent)} {words}")
    return Finding("seccompProfile", ", ".join(details)) if details else None


_CHECKS: Mapping[str, Sequence[Check]] = {
    "baseline": (
        _capabilities, _host_namespaces, _host_paths, _host_ports, _privileged, _proc_mount, _seccomp, _sysctls,
        _host_image,
    ),
    # Where restricted has a stricter check of the same thing, that stands for the one of baseline.
    "restricted": (
        _host_namespaces, _host_ports, _privileged, _proc_mount, _sysctls, _host_image,
        _escalation, _no_capabilities, _volume_types, _non_root, _user, _some_seccomp,
    ),
}  # fmt: skip

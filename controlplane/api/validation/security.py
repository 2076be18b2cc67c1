"""The security contexts of pods and containers: ids, privileges, seccomp, sysctls. Pure.

What a namespace's level allows is another matter: controlplane/api/pod_security.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from controlplane.api.validation.problems import Problems
from podplane.v1 import container_pb2, pod_pb2

_MAX_ID = (1 << 31) - 1
_SYSCTL_PART = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"({_SYSCTL_PART}[\./])*{_SYSCTL_PART}"
_LONGEST_SYSCTL = 253


def pod_security(spec: pod_pb2.PodSpec, path: str, found: Problems) -> None:
    """The context of a pod or of a template."""
    context = spec.securityContext
    seccomp(context.seccompProfile if context.HasField("seccompProfile") else None, f"{path}.seccompProfile", found)
    _ids(context, ("runAsUser", "runAsGroup", "fsGroup"), path, found)
    for index, group in enumerate(context.supplementalGroups):
        _id(group, f"{path}.supplementalGroups[{index}]", found)
    policies = {"fsGroupChangePolicy": ("Always", "OnRootMismatch"), "supplementalGroupsPolicy": ("Merge", "Strict")}
    for name, supported in policies.items():
        found.one_of(f"{path}.{name}", getattr(context, name), supported, required=False)
    _sysctls(spec, f"{path}.sysctls", found)
    if spec.hostPID and spec.shareProcessNamespace:
        words = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.invalid(path.replace("securityContext", "shareProcessNamespace"), True, words)


def _sysctls(spec: pod_pb2.PodSpec, path: str, found: Problems) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(spec.securityContext.sysctls):
        at, name = f"{path}[{index}].name", sysctl.name
        if not name:
            found.required(at)
        elif len(name) > _LONGEST_SYSCTL or not re.fullmatch(_SYSCTL, name):
            found.invalid(at, name, f"must have at most {_LONGEST_SYSCTL} characters and match regex ^{_SYSCTL}$")
        dotted = name.replace("/", ".")
        if spec.hostNetwork and dotted.startswith("net."):
            found.invalid(at, name, "may not be specified when 'hostNetwork' is true")
        if spec.hostIPC and dotted.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
            found.invalid(at, name, "may not be specified when 'hostIPC' is true")
        found.unique(at, name, seen)


def security(context: container_pb2.SecurityContext, path: str, found: Problems) -> None:
    """The context of a container."""
    _ids(context, ("runAsUser", "runAsGroup"), path, found)
    found.one_of(f"{path}.procMount", context.procMount, ("Default", "Unmasked"), required=False)
    escalates = context.HasField("allowPrivilegeEscalation") and not context.allowPrivilegeEscalation
    if escalates and context.privileged:
        found.invalid(path, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    if escalates and "SYS_ADMIN" in {name.removeprefix("CAP_") for name in context.capabilities.add}:
        found.invalid(path, "", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
    seccomp(context.seccompProfile if context.HasField("seccompProfile") else None, f"{path}.seccompProfile", found)


def seccomp(profile: container_pb2.SeccompProfile | None, path: str, found: Problems) -> None:
    """A profile's type, and its file where the type is Localhost."""
    if profile is None:
        return
    found.one_of(f"{path}.type", profile.type, ("Localhost", "RuntimeDefault", "Unconfined"))
    if profile.type == "Localhost":
        if not profile.localhostProfile:
            found.required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")
        elif profile.localhostProfile.startswith("/") or ".." in profile.localhostProfile.split("/"):
            found.invalid(f"{path}.localhostProfile", profile.localhostProfile, "must be a relative path without '..'")
    elif profile.localhostProfile:
        found.invalid(
            f"{path}.localhostProfile", profile.localhostProfile, "can only be set when seccomp type is Localhost"
        )


def _ids(
    context: container_pb2.SecurityContext | pod_pb2.PodSecurityContext,
    names: Iterable[str],
    path: str,
    found: Problems,
) -> None:
    for name in names:
        _id(getattr(context, name), f"{path}.{name}", found)


def _id(value: int, path: str, found: Problems) -> None:
    if value > _MAX_ID:
        found.invalid(path, value, f"must be between 0 and {_MAX_ID}, inclusive")

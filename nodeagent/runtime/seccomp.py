"""From the containers' common seccomp profile to the form that the OCI runtime spec has. Pure.

The profile (/usr/share/containers/seccomp.json, of Debian's golang-github-containers-common) names rules that hold
for some architectures and capabilities only; the OCI form has no conditions. Source: moby's profile format.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


def _holds(rule: Mapping[str, Any], arch: str, capabilities: Collection[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if (wanted := includes.get("arches")) and arch not in wanted:
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if any(name not in capabilities for name in includes.get("caps") or ()):
        return False
    return not any(name in capabilities for name in excludes.get("caps") or ())


def _resolved(rule: Mapping[str, Any]) -> dict[str, Any]:
    names = rule.get("names") or [rule["name"]]
    made: dict[str, Any] = {"names": list(names), "action": rule["action"]}
    if rule.get("errnoRet") is not None and rule["action"] == "SCMP_ACT_ERRNO":
        made["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        made["args"] = [
            {key: arg[key] for key in ("index", "value", "valueTwo", "op") if key in arg} for arg in rule["args"]
        ]
    return made


def resolve(profile: Mapping[str, Any], machine: str, capabilities: Collection[str]) -> dict[str, Any]:
    """The OCI `linux.seccomp` for a machine (uname -m) and the container's capabilities (CAP_...)."""
    arch, seccomp_arch = _ARCHITECTURES.get(machine, (machine, ""))
    made: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        made["defaultErrnoRet"] = profile["defaultErrnoRet"]
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == seccomp_arch:
            made["architectures"] = [seccomp_arch, *(entry.get("subArchitectures") or ())]
    if "architectures" not in made and profile.get("architectures"):
        made["architectures"] = list(profile["architectures"])
    made["syscalls"] = [_resolved(rule) for rule in profile.get("syscalls") or () if _holds(rule, arch, capabilities)]
    return made

"""Containers: image, ports, environment, mounts, privileges. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from controlplane.api.validation import downward
from controlplane.api.validation.probes import probes
from controlplane.api.validation.problems import Problems
from controlplane.api.validation.resources import resources
from controlplane.api.validation.security import security
from controlplane.api.validation.volumes import mounts
from podplane import names
from podplane.v1 import container_pb2

PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")


def containers(
    listed: Iterable[container_pb2.Container],
    path: str,
    volumes: Collection[str],
    grace: int,
    seen: set[str],
    found: Problems,
) -> None:
    """Every container of one list; `seen` holds the names of those of other lists, which must differ too.

    `grace`: the pod's terminationGracePeriodSeconds.
    """
    init = path.endswith("initContainers")
    ports: set[tuple[str, str, int]] = set()
    for index, container in enumerate(listed):
        at = f"{path}[{index}]"
        found.syntax(f"{at}.name", container.name, names.dns_label)
        found.unique(f"{at}.name", container.name, seen)
        _container(container, at, volumes, found)
        probes(container, at, grace, found)
        _host_ports(container, at, ports, found)
        _restart_policy(container, at, found, init=init)


def _container(container: container_pb2.Container, path: str, volumes: Collection[str], found: Problems) -> None:
    if not container.image:
        found.required(f"{path}.image")
    elif container.image.strip() != container.image:
        found.invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    found.one_of(f"{path}.imagePullPolicy", container.imagePullPolicy, PULL_POLICIES)
    found.one_of(
        f"{path}.terminationMessagePolicy", container.terminationMessagePolicy, ("FallbackToLogsOnError", "File")
    )
    for name in ("command", "args"):
        if any("\0" in part for part in getattr(container, name)):
            found.invalid(f"{path}.{name}", list(getattr(container, name)), "must not contain NUL")
    _ports(container, path, found)
    _environment(container, path, found)
    mounts(container, path, volumes, found)
    resources(container.resources, f"{path}.resources", found)
    if container.HasField("securityContext"):
        security(container.securityContext, f"{path}.securityContext", found)


def _restart_policy(container: container_pb2.Container, path: str, found: Problems, *, init: bool) -> None:
    if container.restartPolicy and not init:
        found.forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
    elif container.restartPolicy not in ("", "Always"):
        found.unsupported(f"{path}.restartPolicy", container.restartPolicy, ("Always",))
    if init and container.restartPolicy != "Always":
        for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.HasField(name):
                found.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")


def _ports(container: container_pb2.Container, path: str, found: Problems) -> None:
    seen: set[str] = set()
    for index, port in enumerate(container.ports):
        at = f"{path}.ports[{index}]"
        if port.name:
            found.syntax(f"{at}.name", port.name, names.port_name)
            found.unique(f"{at}.name", port.name, seen)
        if not port.containerPort:
            found.required(f"{at}.containerPort")
        else:
            found.port(f"{at}.containerPort", port.containerPort)
        if port.hostPort:
            found.port(f"{at}.hostPort", port.hostPort)
        found.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)


def _host_ports(
    container: container_pb2.Container, path: str, seen: set[tuple[str, str, int]], found: Problems
) -> None:
    for index, port in enumerate(container.ports):
        if port.hostPort:
            key = (port.protocol, port.hostIP, port.hostPort)
            if key in seen:
                found.duplicate(f"{path}.ports[{index}].hostPort", f"{port.protocol}/{port.hostIP}/{port.hostPort}")
            seen.add(key)


def _environment(container: container_pb2.Container, path: str, found: Problems) -> None:
    for index, variable in enumerate(container.env):
        at = f"{path}.env[{index}]"
        found.syntax(f"{at}.name", variable.name, names.env_name)
        if "=" in variable.name or "\0" in variable.value:
            found.invalid(at, variable.name, "a name must not contain '=', a value must not contain NUL")
        if variable.HasField("valueFrom"):
            if variable.value:
                found.invalid(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
            _env_source(variable.valueFrom, f"{at}.valueFrom", found)
    for index, source in enumerate(container.envFrom):
        at = f"{path}.envFrom[{index}]"
        if source.prefix:
            found.syntax(f"{at}.prefix", source.prefix, names.env_name)
        if source.HasField("configMapRef") == source.HasField("secretRef"):
            found.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
        for name in ("configMapRef", "secretRef"):
            if source.HasField(name) and not getattr(source, name).name:
                found.required(f"{at}.{name}.name")


def _env_source(source: container_pb2.EnvVarSource, path: str, found: Problems) -> None:
    chosen = [name for name in _ENV_SOURCES if source.HasField(name)]  # type: ignore[arg-type]
    if len(chosen) != 1:
        found.invalid(path, "", f"must specify one of: {', '.join(f'`{name}`' for name in _ENV_SOURCES)}")
    for name in ("configMapKeyRef", "secretKeyRef"):
        if name in chosen:
            reference = getattr(source, name)
            if not reference.name:
                found.required(f"{path}.{name}.name")
            found.syntax(f"{path}.{name}.key", reference.key, names.config_key)
    if "fieldRef" in chosen:
        downward.field(source.fieldRef, f"{path}.fieldRef", found, allowed=downward.VARIABLES)
    if "resourceFieldRef" in chosen:
        downward.resource(source.resourceFieldRef, f"{path}.resourceFieldRef", found)

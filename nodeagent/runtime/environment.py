"""The environment of a container, as the kubelet makes it. Pure.

Services first (the weakest), then envFrom in order, then env in order, where $(NAME) refers to what came before.
Fails with ConfigFailure("CreateContainerConfigError"), whose message names the object and the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from nodeagent.runtime.expansion import expand
from nodeagent.runtime.fields import PodFacts, container_of, field_value, resource_value
from podplane.v1.config_pb2 import ConfigMap, Secret
from podplane.v1.container_pb2 import Container, EnvFromSource, EnvVarSource
from podplane.v1.pod_pb2 import Pod
from podplane.v1.service_pb2 import Service

__all__ = ["ConfigFailure", "PodFacts", "command_line", "environment"]

Key = tuple[str, str]
"""(namespace, name)"""
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_MASTER = ("default", "kubernetes")


class ConfigFailure(Exception):
    """A container's configuration is missing something. `reason` is the status that people see."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def service_variables(pod: Pod, services: Iterable[Service]) -> dict[str, str]:
    """{NAME}_SERVICE_HOST and its kin for the services of the pod's namespace (docker's links, too)."""
    linked = pod.spec.enableServiceLinks if pod.spec.HasField("enableServiceLinks") else True
    made: dict[str, str] = {}
    for service in services:
        key = service.metadata.namespace, service.metadata.name
        wanted = key == _MASTER or (linked and key[0] == pod.metadata.namespace)
        if wanted and service.spec.clusterIP not in ("", "None") and service.spec.ports:
            made.update(_of_service(service))
    return made


def _of_service(service: Service) -> dict[str, str]:
    prefix = service.metadata.name.upper().replace("-", "_")
    address, ports = service.spec.clusterIP, service.spec.ports
    made = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            made[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    for index, port in enumerate(ports):
        protocol = (port.protocol or "TCP").lower()
        url, link = f"{protocol}://{address}:{port.port}", f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        if index == 0:
            made[f"{prefix}_PORT"] = url
        made |= {link: url, f"{link}_PROTO": protocol, f"{link}_PORT": str(port.port), f"{link}_ADDR": address}
    return made


class _Sources:
    """Looks values up for one container, with the kubelet's words where they are missing."""

    def __init__(
        self, pod: Pod, container: Container, facts: PodFacts,
        config_maps: Mapping[Key, ConfigMap], secrets: Mapping[Key, Secret],
    ) -> None:  # fmt: skip
        self._pod, self._container, self._facts = pod, container, facts
        self._config_maps, self._secrets = config_maps, secrets

    def all_of(self, source: EnvFromSource) -> dict[str, str]:
        """Every key of a config map or secret that can be a variable's name."""
        secret = source.HasField("secretRef")
        reference = source.secretRef if secret else source.configMapRef
        data = self._data(secret, reference.name, reference.optional)
        named = {source.prefix + key: value for key, value in (data or {}).items()}
        return {key: _text(value) for key, value in named.items() if _NAME.fullmatch(key)}

    def value(self, source: EnvVarSource) -> str | None:
        """One value; None where an optional object or key is absent."""
        try:
            if source.HasField("fieldRef"):
                return field_value(self._pod, source.fieldRef.fieldPath, self._facts)
            if source.HasField("resourceFieldRef"):
                name = source.resourceFieldRef.containerName
                container = container_of(self._pod, name) if name else self._container
                return resource_value(container, source.resourceFieldRef, self._facts)
        except ValueError as error:
            raise ConfigFailure(str(error)) from None
        secret = source.HasField("secretKeyRef")
        return self._key(secret, source)

    def _key(self, secret: bool, source: EnvVarSource) -> str | None:
        reference = source.secretKeyRef if secret else source.configMapKeyRef
        data = self._data(secret, reference.name, reference.optional)
        if data is not None and reference.key in data:
            return _text(data[reference.key])
        if reference.optional:
            return None
        kind, namespace = "Secret" if secret else "ConfigMap", self._pod.metadata.namespace
        raise ConfigFailure(f"couldn't find key {reference.key} in {kind} {namespace}/{reference.name}")

    def _data(self, secret: bool, name: str, optional: bool) -> Mapping[str, str | bytes] | None:
        key = self._pod.metadata.namespace, name
        found = self._secrets.get(key) if secret else self._config_maps.get(key)
        if found is not None:
            return dict(found.data)
        if optional:
            return None
        raise ConfigFailure(f'{"secret" if secret else "configmap"} "{name}" not found')


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def environment(
    pod: Pod, container: Container, facts: PodFacts, config_maps: Mapping[Key, ConfigMap],
    secrets: Mapping[Key, Secret], services: Iterable[Service],
) -> list[tuple[str, str]]:  # fmt: skip
    """The variables of a container. Mappings are by (namespace, name). Raises ConfigFailure."""
    sources = _Sources(pod, container, facts, config_maps, secrets)
    linked = service_variables(pod, services)
    own: dict[str, str] = {}
    for source in container.envFrom:
        own.update(sources.all_of(source))
    for variable in container.env:
        value: str | None = expand(variable.value, {**linked, **own})
        if not variable.value and variable.HasField("valueFrom"):
            value = sources.value(variable.valueFrom)
        if value is not None:
            own[variable.name] = value
    for name, value in own.items():
        if "\0" in value:
            raise ConfigFailure(f"the value of environment variable {name} contains a NUL byte")
    return [*((name, value) for name, value in linked.items() if name not in own), *own.items()]


def command_line(words: Sequence[str], variables: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """A container's command or args with $(NAME) expanded."""
    known = dict(variables)
    return tuple(expand(word, known) for word in words)

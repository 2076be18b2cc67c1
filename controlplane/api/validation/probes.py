"""Probes and lifecycle hooks: exactly one action each, and timings that make sense. Pure."""

from __future__ import annotations

import re

from google.protobuf.struct_pb2 import Value

from controlplane.api.validation.problems import Problems
from podplane import intstr, names
from podplane.v1 import container_pb2

_ACTIONS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_TIMINGS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_HEADER = re.compile(r"[-A-Za-z0-9]+")


def probes(container: container_pb2.Container, path: str, grace: int, found: Problems) -> None:
    """The three probes and two hooks of a container; `grace`: the pod's terminationGracePeriodSeconds."""
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.HasField(name):
            _probe(getattr(container, name), f"{path}.{name}", found, may_repeat=name == "readinessProbe")
    if container.readinessProbe.HasField("terminationGracePeriodSeconds"):
        at = f"{path}.readinessProbe.terminationGracePeriodSeconds"
        found.invalid(at, container.readinessProbe.terminationGracePeriodSeconds, "must not be set for readinessProbes")
    for name in ("postStart", "preStop"):
        if container.lifecycle.HasField(name):  # type: ignore[arg-type]
            _hook(getattr(container.lifecycle, name), f"{path}.lifecycle.{name}", grace, found)


def _hook(hook: container_pb2.LifecycleHandler, path: str, grace: int, found: Problems) -> None:
    _handler(hook, path, found)
    if hook.HasField("sleep") and not 0 < hook.sleep.seconds <= grace:
        words = f"must be greater than 0 and less than terminationGracePeriodSeconds ({grace})"
        found.invalid(f"{path}.sleep", hook.sleep.seconds, words)


def _probe(probe: container_pb2.Probe, path: str, found: Problems, *, may_repeat: bool) -> None:
    _handler(probe, path, found)
    for name in _TIMINGS:
        found.at_least(f"{path}.{name}", getattr(probe, name))
    if not may_repeat and probe.successThreshold != 1:
        found.invalid(f"{path}.successThreshold", probe.successThreshold, "must be 1")
    if probe.HasField("terminationGracePeriodSeconds"):
        found.at_least(f"{path}.terminationGracePeriodSeconds", probe.terminationGracePeriodSeconds, 1)


def _handler(handler: container_pb2.Probe | container_pb2.LifecycleHandler, path: str, found: Problems) -> None:
    chosen = [name for name in _ACTIONS if name in handler.DESCRIPTOR.fields_by_name and _has(handler, name)]
    if not chosen:
        found.required(path, "must specify a handler type")
    for name in chosen[1:]:
        found.forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    if handler.HasField("exec") and not handler.exec.command:
        found.required(f"{path}.exec.command")
    if handler.HasField("httpGet"):
        _http_get(handler.httpGet, f"{path}.httpGet", found)
    if handler.HasField("tcpSocket"):
        port_reference(handler.tcpSocket.port, f"{path}.tcpSocket.port", found)
    if isinstance(handler, container_pb2.Probe) and handler.HasField("grpc"):
        found.port(f"{path}.grpc.port", handler.grpc.port)


def _has(handler: container_pb2.Probe | container_pb2.LifecycleHandler, name: str) -> bool:
    return bool(handler.HasField(name))  # type: ignore[arg-type]


def _http_get(action: container_pb2.HTTPGetAction, path: str, found: Problems) -> None:
    if not action.path:
        found.required(f"{path}.path")
    port_reference(action.port, f"{path}.port", found)
    found.one_of(f"{path}.scheme", action.scheme, ("HTTP", "HTTPS"))
    for index, header in enumerate(action.httpHeaders):
        if not _HEADER.fullmatch(header.name):
            found.invalid(
                f"{path}.httpHeaders[{index}].name",
                header.name,
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')",
            )


def port_reference(value: Value, path: str, found: Problems) -> None:
    """A port's number or a port's name."""
    number = intstr.number(value)
    if number is not None:
        found.port(path, number)
    else:
        found.syntax(path, value.string_value, names.port_name)

"""From a service's selector to its ready endpoints: which link is missing, and why. Pure.

Source: Kubernetes' page "Debug Services", and the endpoint slice controller's rules (controlplane/controllers/slices).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane.controllers.facts import is_finished, is_ready, is_terminating, pod_condition
from controlplane.controllers.slices import belongs, containers
from controlplane.diagnosis.facts import ERROR, WARNING, Facts, Finding, finding, some
from podplane import intstr, statuses
from podplane.v1 import container_pb2, diagnosis_pb2, endpointslice_pb2, pod_pb2, service_pb2

READY, TERMINATING, NOT_READY = "Ready", "Terminating", "NotReady"
_SHOWN = 5
"""Pods that are told one by one."""
_LONGEST = 300
"""Characters of what a container says of itself."""


def endpoints(facts: Facts) -> list[diagnosis_pb2.DiagnosedEndpoint]:
    """Those of the slices, which rules are made of; why one is not ready is its pod's to say."""
    pods = {pod.metadata.uid: pod for pod in facts.pods}
    found: dict[tuple[str, str], diagnosis_pb2.DiagnosedEndpoint] = {}
    for each in facts.slices:
        for endpoint in each.endpoints:
            for address in endpoint.addresses[:1]:
                key = (address, endpoint.targetRef.uid)
                made = found.setdefault(key, _endpoint(address, endpoint, pods.get(endpoint.targetRef.uid)))
                made.ports.extend(port.port for port in each.ports if port.port not in made.ports)
    return sorted(found.values(), key=lambda each: (each.state != READY, each.pod, each.address))


def _endpoint(
    address: str, endpoint: endpointslice_pb2.Endpoint, pod: pod_pb2.Pod | None
) -> diagnosis_pb2.DiagnosedEndpoint:
    made = diagnosis_pb2.DiagnosedEndpoint(
        address=address, pod=endpoint.targetRef.name, node=endpoint.nodeName, state=state_of(endpoint)
    )
    if made.state != READY and pod is not None:
        made.message = why_not_ready(pod)
    return made


def state_of(endpoint: endpointslice_pb2.Endpoint) -> str:
    """As the proxy takes it (nodeagent/proxy/services.py)."""
    conditions = endpoint.conditions
    if not conditions.HasField("ready") or conditions.ready:
        return READY
    serves = not conditions.HasField("serving") or conditions.serving
    return TERMINATING if conditions.terminating and serves else NOT_READY


def findings(facts: Facts) -> Iterator[Finding]:
    """What is missing between the selector and the endpoints, the first link first."""
    spec = facts.service.spec
    if spec.type == "ExternalName":
        return
    known = endpoints(facts)
    if not spec.selector:
        if not any(each.state == READY for each in known):
            yield finding(
                ERROR, "NoEndpoints",
                "the service has no selector, and no EndpointSlice of its own has a ready endpoint",
                f"give it a selector, or write an EndpointSlice with the label kubernetes.io/service-name: "
                f"{facts.service.metadata.name}",
            )  # fmt: skip
        return
    matched = [pod for pod in facts.pods if _matches(spec.selector, pod)]
    if not matched:
        yield _no_pod(facts)
        return
    yield from _pods(facts, matched)
    yield from _names(facts, matched)
    yield from _slices(matched, known)


def _matches(selector: Mapping[str, str], pod: pod_pb2.Pod) -> bool:
    return dict(selector).items() <= dict(pod.metadata.labels).items()


def _no_pod(facts: Facts) -> Finding:
    selector = dict(facts.service.spec.selector)
    wanted = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    message = f"no pod in namespace {facts.service.metadata.namespace} has the labels {wanted}"
    nearest = max(facts.pods, key=lambda pod: _likeness(selector, pod), default=None)
    if nearest is not None and _likeness(selector, nearest) > (0, 0):
        labels = dict(nearest.metadata.labels)
        differs = [f"{key}={labels.get(key, '<none>')}" for key in sorted(selector) if labels.get(key) != selector[key]]
        message += f"; the nearest, {nearest.metadata.name}, has {some(differs)}"
    fix = f"correct the selector or the pods' labels: `podctl get pods -l {wanted}` shows what it matches"
    return finding(ERROR, "NoPodMatches", message, fix)


def _likeness(selector: Mapping[str, str], pod: pod_pb2.Pod) -> tuple[int, int]:
    labels = dict(pod.metadata.labels)
    equal = sum(labels.get(key) == value for key, value in selector.items())
    return equal, sum(key in labels for key in selector)


def _pods(facts: Facts, matched: list[pod_pb2.Pod]) -> Iterator[Finding]:
    ready = [pod for pod in matched if belongs(pod) and is_ready(pod)]
    staying = [pod for pod in ready if not is_terminating(pod)]
    others = [pod for pod in matched if not is_ready(pod) and not is_terminating(pod)]
    if facts.service.spec.publishNotReadyAddresses:
        others = [pod for pod in others if not belongs(pod)]
        staying = staying or [pod for pod in matched if belongs(pod)]
    type = WARNING if staying else ERROR
    if ready and not staying:
        names = some([pod.metadata.name for pod in ready])
        yield finding(
            WARNING, "OnlyTerminating", f"only pods that are being deleted are left, and still serve: {names}",
            "nothing, where new ones are on their way: `podctl get pods`",
        )  # fmt: skip
        type = WARNING
    for pod in others[:_SHOWN]:
        where = f" on {pod.spec.nodeName}" if pod.spec.nodeName else ""
        yield finding(
            type, "PodFinished" if is_finished(pod) else "PodNotReady",
            f"pod {pod.metadata.name}{where} matches and is not ready: {why_not_ready(pod)}",
            f"`podctl describe pod {pod.metadata.name} -n {pod.metadata.namespace}`, "
            f"`podctl explain {statuses.shown(pod).replace('Running', 'Ready')}`",
        )  # fmt: skip
    if len(others) > _SHOWN:
        names = some([pod.metadata.name for pod in others[_SHOWN:]])
        yield finding(type, "PodNotReady", f"{len(others) - _SHOWN} more pods are not ready: {names}",
                      "`podctl get pods`")  # fmt: skip


def why_not_ready(pod: pod_pb2.Pod) -> str:
    """The pod's STATUS, and what the first says that has something to say: scheduler, container, readiness."""
    shown = statuses.shown(pod)
    scheduled = pod_condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return f"{shown}: {scheduled.message or scheduled.reason}"
    for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses):
        if status.state.waiting.reason not in ("", "PodInitializing"):
            return _words(shown, f"container {status.name}", status.state.waiting.message)
        ended = status.state.terminated
        if status.state.HasField("terminated") and ended.exitCode:
            return _words(shown, f"container {status.name}", f"exit code {ended.exitCode} {ended.message}".strip())
    unready = [status.name for status in pod.status.containerStatuses if not status.ready]
    if unready and not is_finished(pod):
        if any(status.state.HasField("running") for status in pod.status.containerStatuses if not status.ready):
            return f"{shown}: container {some(unready)} runs, but its readiness probe has not succeeded"
        return f"{shown}: container {some(unready)} does not run"
    condition = pod_condition(pod, "Ready")
    return _words(shown, "", pod.status.message or (condition.message if condition is not None else ""))


def _words(shown: str, who: str, message: str) -> str:
    text = " ".join(filter(None, (who, message)))[:_LONGEST]
    return f"{shown}: {text}" if text else shown


def _names(facts: Facts, matched: list[pod_pb2.Pod]) -> Iterator[Finding]:
    """Ports whose targetPort is a name that pods do not have."""
    asked = [pod for pod in matched if not is_finished(pod)]
    for port in facts.service.spec.ports:
        name = port.targetPort.string_value
        if not name:
            continue
        lacking = [pod for pod in asked if _number(port, pod) is None]
        if lacking:
            declared = _declared(lacking[0])
            yield finding(
                ERROR if len(lacking) == len(asked) else WARNING, "NoSuchPortName",
                f'targetPort "{name}" of port {port.name or port.port}/{port.protocol or "TCP"} is no port of '
                f"{some([f'pod {pod.metadata.name}' for pod in lacking])}, which declares {declared}",
                "name a container port so, or give the number for targetPort",
            )  # fmt: skip


def _number(port: service_pb2.ServicePort, pod: pod_pb2.Pod) -> int | None:
    return intstr.resolve_port(port.targetPort, containers(pod), port.protocol or "TCP")


def _declared(pod: pod_pb2.Pod) -> str:
    found = [_spelled(port) for container in containers(pod) for port in container.ports]
    return some(found) if found else "no ports"


def _spelled(port: container_pb2.ContainerPort) -> str:
    return f"{port.name + '=' if port.name else ''}{port.containerPort}/{port.protocol or 'TCP'}"


def _slices(matched: list[pod_pb2.Pod], known: list[diagnosis_pb2.DiagnosedEndpoint]) -> Iterator[Finding]:
    """Pods and slices that do not say the same: the controller is on its way, or does not work."""
    ready = {pod.metadata.name for pod in matched if belongs(pod) and is_ready(pod) and not is_terminating(pod)}
    listed = {each.pod for each in known if each.state == READY}
    if late := sorted(ready - listed):
        yield finding(
            WARNING if listed else ERROR, "EndpointsBehind", f"ready, but not among the endpoints: {some(late)}",
            "it takes a moment; where it stays, the control plane's log says why",
        )  # fmt: skip
    there = {pod.metadata.name for pod in matched if belongs(pod)}
    if gone := sorted(each for each in {each.pod for each in known if each.pod} - there):
        yield finding(WARNING, "EndpointsBehind", f"among the endpoints, but gone or finished: {some(gone)}",
                      "it takes a moment; where it stays, the control plane's log says why")  # fmt: skip

"""Metrics: what pods and nodes use now, asked of their nodes at each call (Kubernetes' metrics.k8s.io shapes).

Owns no state. A node that is not connected, refuses or takes too long is left out, as a scrape that failed would be;
the log says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from controlplane.api.access import Rule
from controlplane.api.authz import Attempt
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.api.handlers import DEFAULT_NAMESPACE
from controlplane.api.selection import predicate
from controlplane.nodes import Sessions
from controlplane.objects import Objects
from podplane import quantity
from podplane.errors import PodplaneError
from podplane.kinds import NODE, POD, Kind
from podplane.v1 import metrics_pb2, pod_pb2, session_pb2

logger = logging.getLogger(__name__)

NODE_SECONDS = 6.0
"""What a node has to answer. It measures for a second where it was not asked lately."""
_API_VERSION = "metrics.k8s.io/v1beta1"


def attempt(rule: Rule, request: metrics_pb2.MetricsRequest) -> Attempt:
    """What a request attempts; nodes have no namespace."""
    if rule.resource.startswith(NODE.plural):
        request.namespace = ""
    elif request.name:
        request.namespace = request.namespace or DEFAULT_NAMESPACE
    return Attempt(rule.verb, rule.resource, request.namespace, request.name)


class Metrics:
    """The Metrics service."""

    def __init__(self, objects: Objects, sessions: Sessions) -> None:
        self._objects = objects
        self._sessions = sessions

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Pods": self.pods, "Nodes": self.nodes}

    async def pods(self, request: metrics_pb2.MetricsRequest, _call: Call) -> metrics_pb2.PodMetricsList:
        wanted: list[pod_pb2.Pod] = [pod for pod in self._selected(POD, request) if pod.status.phase == "Running"]
        reports = await self._reports({pod.spec.nodeName for pod in wanted if pod.spec.nodeName})
        answer = metrics_pb2.PodMetricsList(apiVersion=_API_VERSION, kind="PodMetricsList")
        used = {pod.uid: (report, pod) for report in reports.values() for pod in report.pods}
        for pod in sorted(wanted, key=lambda pod: (pod.metadata.namespace, pod.metadata.name)):
            if (found := used.get(pod.metadata.uid)) is not None and found[1].containers:
                answer.items.append(pod_metrics(pod, *found))
        return answer

    async def nodes(self, request: metrics_pb2.MetricsRequest, _call: Call) -> metrics_pb2.NodeMetricsList:
        wanted = self._selected(NODE, request)
        reports = await self._reports(node.metadata.name for node in wanted)
        answer = metrics_pb2.NodeMetricsList(apiVersion=_API_VERSION, kind="NodeMetricsList")
        for node in sorted(wanted, key=lambda node: str(node.metadata.name)):
            if (report := reports.get(node.metadata.name)) is not None:
                made = answer.items.add(apiVersion=_API_VERSION, kind="NodeMetrics", usage=usage(report.node))
                _stamp(made, node, report)
        return answer

    def _selected(self, kind: Kind, request: metrics_pb2.MetricsRequest) -> list[Any]:
        if request.name:
            return [self._objects.stored(kind, request.namespace, request.name).obj]
        matches = predicate(kind, request.labelSelector, request.fieldSelector)
        found = self._objects.list(kind)
        return [
            obj
            for obj in found
            if (not request.namespace or obj.metadata.namespace == request.namespace)
            and (matches is None or matches(obj))
        ]

    async def _reports(self, nodes: Iterable[str]) -> dict[str, session_pb2.UsageReport]:
        names = sorted(nodes)
        found = await asyncio.gather(*map(self._report, names))
        return {name: report for name, report in zip(names, found, strict=True) if report is not None}

    async def _report(self, node: str) -> session_pb2.UsageReport | None:
        wish = session_pb2.OpenStream(usage=session_pb2.UsageRequest())
        try:
            return (await self._sessions.ask(node, wish, NODE_SECONDS)).usage
        except PodplaneError as error:
            logger.info("cannot tell what a node uses", extra={"node": node, "error": str(error)})
        return None


def pod_metrics(
    pod: pod_pb2.Pod, report: session_pb2.UsageReport, used: session_pb2.PodUsage
) -> metrics_pb2.PodMetrics:
    """One pod's."""
    made = metrics_pb2.PodMetrics(apiVersion=_API_VERSION, kind="PodMetrics")
    _stamp(made, pod, report)
    for container in used.containers:
        made.containers.add(name=container.name, usage=usage(container))
    return made


def usage(used: session_pb2.Usage) -> dict[str, str]:
    """As quantities, in the units that Kubernetes' metrics-server prints: nanocores and kibibytes."""
    return {
        "cpu": f"{used.cpuNanoCores}n" if used.cpuNanoCores else "0",
        "memory": quantity.of_value(used.memoryBytes // 1024 * 1024, binary=True),
    }


def _stamp(made: Any, obj: Any, report: session_pb2.UsageReport) -> None:
    metadata = obj.metadata
    made.metadata.name, made.metadata.namespace = metadata.name, metadata.namespace
    made.metadata.creationTimestamp.CopyFrom(report.timestamp)
    made.metadata.labels.update(metadata.labels)
    made.timestamp.CopyFrom(report.timestamp)
    made.window = f"{report.windowSeconds:.3f}s"

"""Diagnosis: what the store says of a service and what every node's kernel has of it, asked at each call.

Owns no state and decides nothing: controlplane/diagnosis does. A node that is not connected or takes too long is a row
that says so. Fails with NotFound where there is no such service, Invalid where A or B cannot be.
"""

from __future__ import annotations

import asyncio
import time

from controlplane.api.access import Rule
from controlplane.api.authz import Attempt
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.api.handlers import DEFAULT_NAMESPACE
from controlplane.controllers.slices import SERVICE_NAME
from controlplane.diagnosis import backing, nodes, paths
from controlplane.diagnosis.facts import Answer, Facts
from controlplane.nodes import Sessions
from controlplane.objects import Objects
from podplane import intstr
from podplane.errors import PodplaneError
from podplane.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE
from podplane.v1 import diagnosis_pb2, node_pb2, pod_pb2, service_pb2, session_pb2

NODE_SECONDS = 6.0
"""What a node has to answer; it reads all of its rules."""
_API_VERSION = "podplane/v1"
_MOST_ENDPOINTS = 1000
"""Those that are told: a service may have a hundred thousand."""


def attempt(rule: Rule, request: diagnosis_pb2.ServiceDiagnosisRequest) -> Attempt:
    """What a request attempts."""
    request.namespace = request.namespace or DEFAULT_NAMESPACE
    return Attempt(rule.verb, rule.resource, request.namespace, request.name)


class Diagnosis:
    """The Diagnosis service."""

    def __init__(self, objects: Objects, sessions: Sessions) -> None:
        self._objects = objects
        self._sessions = sessions

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Service": self.service}

    async def service(
        self, request: diagnosis_pb2.ServiceDiagnosisRequest, call: Call
    ) -> diagnosis_pb2.ServiceDiagnosis:
        source = getattr(request, "from")
        facts = await self._facts(request.namespace, request.name, self._sender(request.namespace, source, call))
        return diagnosis(facts, source, request.to)

    def _sender(self, namespace: str, source: str, call: Call) -> pod_pb2.Pod | None:
        kind, _, name = source.partition("/")
        if kind != paths.POD or not name:
            return None
        other, _, short = name.rpartition("/")
        where = other or namespace
        call.authorizer.require(call.identity, Attempt("get", POD.plural, where, short))
        found: pod_pb2.Pod = self._objects.stored(POD, where, short).obj
        return found

    async def _facts(self, namespace: str, name: str, sender: pod_pb2.Pod | None) -> Facts:
        # Before the nodes are asked: what they have programmed meanwhile is newer, and as good.
        stored = self._objects.stored(SERVICE, namespace, name)
        slices = [
            each
            for each in self._objects.cache.list(ENDPOINT_SLICE, namespace)
            if each.obj.metadata.labels.get(SERVICE_NAME) == name
        ]
        revision = max([stored.revision, *(each.revision for each in slices)])
        pods = self._objects.list(POD, namespace)
        answers = await asyncio.gather(*(self._answer(node, namespace, name) for node in self._objects.list(NODE)))
        return Facts(stored.obj, revision, pods, [each.obj for each in slices], answers, sender)

    async def _answer(self, node: node_pb2.Node, namespace: str, name: str) -> Answer:
        where = node.metadata.name
        wish = session_pb2.OpenStream(rules=session_pb2.ServiceRulesRequest(namespace=namespace, name=name))
        rules, silence = None, ""
        try:
            rules = (await self._sessions.ask(where, wish, NODE_SECONDS)).rules
        except PodplaneError as error:
            silence = str(error)
        programmed = self._sessions.hub.rules_of(where)
        if rules is not None:
            programmed = max(programmed, rules.programmedRevision)
        return Answer(node, where in self._sessions.connected(), programmed, self._seen(where), rules, silence)

    def _seen(self, node: str) -> float | None:
        at = self._sessions.last_seen(node)
        return None if at is None else time.time() - (asyncio.get_running_loop().time() - at)


def diagnosis(facts: Facts, source: str = "", target: str = "") -> diagnosis_pb2.ServiceDiagnosis:
    """The whole answer. Pure. Raises Invalid, NotFound where source or target cannot be."""
    service = facts.service
    made = diagnosis_pb2.ServiceDiagnosis(apiVersion=_API_VERSION, kind="ServiceDiagnosis", revision=facts.revision)
    made.metadata.name, made.metadata.namespace = service.metadata.name, service.metadata.namespace
    made.metadata.uid = service.metadata.uid
    made.type, made.clusterIP = service.spec.type, service.spec.clusterIP
    made.ports.extend(map(_port, service.spec.ports))
    endpoints = backing.endpoints(facts)
    made.endpoints.extend(endpoints[:_MOST_ENDPOINTS])
    made.readyCount = sum(each.state == backing.READY for each in endpoints)
    made.nodes.extend(nodes.rows(facts))
    made.findings.extend([*backing.findings(facts), *nodes.findings(facts, made.nodes)])
    made.healthy, made.verdict = nodes.verdict(facts, endpoints, made.nodes, made.findings)
    if source or target:
        made.paths.extend(paths.paths(facts, source, target, endpoints))
    return made


def _port(port: service_pb2.ServicePort) -> diagnosis_pb2.DiagnosedPort:
    made = diagnosis_pb2.DiagnosedPort(name=port.name, protocol=port.protocol or "TCP", port=port.port)
    number = intstr.number(port.targetPort)
    made.targetPort = port.targetPort.string_value or str(number or port.port)
    if port.nodePort:
        made.nodePort = port.nodePort
    return made

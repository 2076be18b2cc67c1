"""Where a packet from A to B goes: which node decides, by which rules, who may get it, or what is missing. Pure.

A packet to the cluster address is decided by the node that it comes from; one to a node port by the node that it is
sent to, from outside where it comes from another node. Fails with Invalid where A or B cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from controlplane.diagnosis.facts import Answer, Facts, some
from podplane.errors import Invalid, NotFound
from podplane.v1 import diagnosis_pb2, service_pb2

POD, NODE, OUTSIDE = "pod", "node", "outside"
CLUSTER_IP, NODE_PORT, LOAD_BALANCER = "ClusterIP", "NodePort", "LoadBalancer"
_MOST = 100
"""Paths of one answer: each may have a hundred rules."""
Endpoints = Sequence[diagnosis_pb2.DiagnosedEndpoint]


@dataclass(frozen=True, slots=True)
class Source:
    """Who sends. node: where, "" for outside; kind: as that node's rules see it."""

    title: str
    kind: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What is sent to. node: of a node port; address: of a load balancer; port: "" for all."""

    title: str
    destination: str
    node: str = ""
    address: str = ""
    port: str = ""


def paths(facts: Facts, source: str, target: str, endpoints: Endpoints) -> list[diagnosis_pb2.ServicePath]:
    """Every way from source to target, as requests spell them; "" for what fits the other."""
    if not facts.has_rules:
        kind = "headless" if facts.is_headless else "of type ExternalName"
        raise Invalid(f"{facts.key} is {kind}: it has no address of its own, DNS gives those that clients ask")
    made: list[diagnosis_pb2.ServicePath] = []
    for to in _targets(facts, source, target):
        for sender in _sources(facts, source, to):
            made += _between(facts, sender, to, endpoints)
        if len(made) > _MOST:
            raise Invalid(f"--to {target}: these are more than {_MOST} ways: name a node and a port, as node/NAME:PORT")
    if not made:
        raise Invalid(f"--to {target}: {facts.key} has no such port; it has {_ports(facts.service)}")
    return made


def _targets(facts: Facts, source: str, target: str) -> Iterator[Target]:
    spec = facts.service.spec
    place, _, port = target.partition(":")
    if not place:
        external = source == OUTSIDE and any(each.nodePort for each in spec.ports)
        place = "node" if external else "cluster-ip"
    if place in ("cluster-ip", spec.clusterIP):
        yield Target(f"{spec.clusterIP}", CLUSTER_IP, port=port)
        return
    named = place.removeprefix("node/")
    nodes = [each for each in facts.answers if place == "node" or each.name == named or place in _addresses(each)]
    for answer in nodes:
        yield Target(f"node/{answer.name}", NODE_PORT, node=answer.name, port=port)
    if not nodes:
        balanced = [item.ip for item in facts.service.status.loadBalancer.ingress]
        if place not in balanced:
            raise Invalid(
                f"--to {target}: {place} is no address of {facts.key}; it is cluster-ip, node/NAME, or one of "
                f"{some([spec.clusterIP, *balanced, *(f'node/{each.name}' for each in facts.answers)])}"
            )
        yield Target(place, LOAD_BALANCER, address=place, port=port)


def _addresses(answer: Answer) -> list[str]:
    return [each.address for each in answer.node.status.addresses]


def _sources(facts: Facts, source: str, to: Target) -> Iterator[Source]:
    kind, _, name = source.partition("/")
    if source == OUTSIDE or (not source and to.destination == NODE_PORT):
        # At the cluster address as well, where somebody routes it to a node.
        yield from (Source(OUTSIDE, OUTSIDE, each.name) for each in facts.answers if to.node in ("", each.name))
    elif not source:
        yield from (Source(f"node/{each.name}", NODE, each.name) for each in facts.answers)
    elif kind == NODE and name:
        if name not in {each.name for each in facts.answers}:
            raise NotFound(f'nodes "{name}" not found')
        yield Source(source, NODE, name)
    elif kind == POD and name:
        yield _pod(facts, source)
    else:
        raise Invalid(f"--from {source}: it is pod/NAME, pod/NAMESPACE/NAME, node/NAME or outside")


def _pod(facts: Facts, source: str) -> Source:
    pod = facts.sender
    if pod is None or not pod.spec.nodeName:
        raise Invalid(f"--from {source}: the pod is on no node yet")
    return Source(source, NODE if pod.spec.hostNetwork else POD, pod.spec.nodeName)


def _between(facts: Facts, sender: Source, to: Target, endpoints: Endpoints) -> Iterator[diagnosis_pb2.ServicePath]:
    """A path for each port."""
    if to.destination == NODE_PORT and sender.node != to.node:
        sender = replace(sender, kind=OUTSIDE, node=to.node)
    answer = next((each for each in facts.answers if each.name == sender.node), None)
    for port in facts.service.spec.ports:
        number = port.nodePort if to.destination == NODE_PORT else port.port
        if number and to.port in ("", str(number), port.name, str(port.port)):
            title = f"{to.title}:{number}/{port.protocol or 'TCP'}"
            made = diagnosis_pb2.ServicePath(to=title, node=sender.node)
            setattr(made, "from", sender.title)
            _follow(facts, made, answer, _way(answer, sender, to, port, number), endpoints)
            yield made


def _way(
    answer: Answer | None, sender: Source, to: Target, port: service_pb2.ServicePort, number: int
) -> diagnosis_pb2.ServiceWay | None:
    """What the node's rules say of it."""
    if answer is None or answer.rules is None:
        return None
    asked = (sender.kind, to.destination, to.address, port.protocol or "TCP", number)
    for way in answer.rules.ways:
        address = "" if way.destination == CLUSTER_IP else way.address
        if (way.source, way.destination, address, way.protocol, way.port) == asked:
            return way
    return None


def _follow(
    facts: Facts,
    made: diagnosis_pb2.ServicePath,
    answer: Answer | None,
    way: diagnosis_pb2.ServiceWay | None,
    endpoints: Endpoints,
) -> None:
    made.arrives = False
    if way is None:
        made.verdict = f"unknown: {_silence(facts, made.node, answer)}"
        return
    made.way.CopyFrom(way)
    known = {f"{each.address}:{port}": each for each in endpoints for port in each.ports}
    for target in way.endpoints:
        found = made.endpoints.add()
        if target in known:
            found.CopyFrom(known[target])
            del found.ports[:]
        found.address = target
    lost = _unreachable(made, answer)
    # Where a stranger stands among our rules, nobody knows what becomes of the packet.
    strangers = answer is not None and answer.rules is not None and answer.rules.extraCount > 0
    stands = not way.missing and not strangers
    made.arrives = way.action == "Forward" and stands and len(lost) < len(made.endpoints)
    made.verdict = _words(facts, made, answer, lost)


def _unreachable(made: diagnosis_pb2.ServicePath, answer: Answer | None) -> list[str]:
    """The path's endpoints that no route of the node leads to."""
    problems = answer.rules.unreachable if answer is not None and answer.rules is not None else {}
    return [each.address for each in made.endpoints if each.address.partition(":")[0] in problems]


def _silence(facts: Facts, node: str, answer: Answer | None) -> str:
    if answer is None:
        return f"node {node} is not in the cluster"
    if not answer.connected:
        return f"node {node} is not connected; its rules are those of revision {answer.programmed}"
    if answer.rules is None:
        return f"node {node}: {answer.silence}"
    rules = answer.rules
    why = rules.serviceError or rules.error or f"it has not programmed revision {facts.revision} yet"
    return f"node {node} has no such rule: {why}"


def _words(facts: Facts, made: diagnosis_pb2.ServicePath, answer: Answer | None, lost: Sequence[str]) -> str:
    way, node = made.way, made.node
    if way.missing:
        more = f" and {len(way.missing) - 1} more" if len(way.missing) > 1 else ""
        return f"lost on {node}, whose kernel lacks: {way.missing[0]}{more}"
    if way.action == "Refuse":
        return f"refused at once on {node}: no endpoint is ready"
    if way.action == "Drop":
        policy = "internalTrafficPolicy" if way.destination == CLUSTER_IP else "externalTrafficPolicy"
        return f"dropped on {node}: {policy} is Local, and no ready endpoint is there"
    names = [_named(each) for each in made.endpoints]
    if len(lost) == len(names):
        return f"lost on {node}, which has no route to {some(lost)}"
    seen = f"{node}'s address" if way.masquerade else "the client's address"
    words = f"{node} leads it to {'one of ' if len(names) > 1 else ''}{some(names, 4)}, which sees {seen}"
    if lost:
        words += f"; it has no route to {some(lost)}"
    if answer is not None and answer.rules is not None:
        if answer.programmed < facts.revision:
            words += f"; its rules are older than the service (revision {answer.programmed}, not {facts.revision})"
        if answer.rules.extra:
            words += f"; unless a rule takes it that is not ours: {answer.rules.extra[0]}"
        if answer.rules.obstacles:
            words += f"; a firewall may drop it ({answer.rules.obstacles[0]})"
    return words


def _named(endpoint: diagnosis_pb2.DiagnosedEndpoint) -> str:
    where = ", ".join(filter(None, (endpoint.address, endpoint.node)))
    return f"{endpoint.pod or 'endpoint'} ({where})"


def _ports(service: service_pb2.Service) -> str:
    return some([_spelled(port) for port in service.spec.ports])


def _spelled(port: service_pb2.ServicePort) -> str:
    name = f"{port.name}=" if port.name else ""
    return f"{name}{port.port}{f' (node port {port.nodePort})' if port.nodePort else ''}"

"""What `podctl why` prints: the verdict, a table of the nodes, what is missing, and where packets go. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podctl.tabwriter import Columns
from podplane import duration
from podplane.v1 import diagnosis_pb2

_HEADER = ["NODE", "MODE", "REVISION", "RULES", "STATE", "WHAT IS MISSING"]
_NOTHING = "<none>"
_MOST = 10


def lines(found: diagnosis_pb2.ServiceDiagnosis, now: float, *, wide: bool) -> Iterator[str]:
    """All of it. wide: every rule that differs, and every rule that a packet meets."""
    yield found.verdict
    yield ""
    yield from _service(found)
    yield ""
    yield from Columns().lines([_HEADER, *(_row(node, now) for node in found.nodes)])
    if wide:
        yield from _differences(found.nodes)
    if found.findings:
        yield ""
        yield from _findings(found.findings)
    for path in found.paths:
        yield ""
        yield from _path(path, wide=wide)


def _service(found: diagnosis_pb2.ServiceDiagnosis) -> Iterator[str]:
    ports = [_port(port) for port in found.ports]
    rows = [
        ["Service:", f"{found.metadata.namespace}/{found.metadata.name} ({found.type})"],
        ["Address:", found.clusterIP or _NOTHING],
        ["Ports:", ", ".join(ports) or _NOTHING],
        ["Endpoints:", ", ".join(map(_endpoint, found.endpoints[:_MOST])) or _NOTHING],
        ["Revision:", str(found.revision)],
    ]
    if len(found.endpoints) > _MOST:
        rows[3][1] += f" ...; {found.readyCount} are ready in all"
    yield from Columns().lines(rows)


def _port(port: diagnosis_pb2.DiagnosedPort) -> str:
    name = f"{port.name} " if port.name else ""
    node = f" (node port {port.nodePort})" if port.nodePort else ""
    return f"{name}{port.port}/{port.protocol} -> {port.targetPort}{node}"


def _endpoint(endpoint: diagnosis_pb2.DiagnosedEndpoint) -> str:
    where = f"{endpoint.address}:{','.join(map(str, endpoint.ports))}"
    who = f" {endpoint.pod}" if endpoint.pod else ""
    return f"{where}{who}{f' on {endpoint.node}' if endpoint.node else ''} {endpoint.state}"


def _row(node: diagnosis_pb2.DiagnosedNode, now: float) -> list[str]:
    rules = node.rules
    message = node.message or "-"
    if node.HasField("lastSeen"):
        message = f"not heard of for {duration.human(now - node.lastSeen.seconds)}; {message}"
    wanted = rules.standing + rules.missingCount
    share = f"{rules.standing}/{wanted}{f' +{rules.extraCount}' if rules.extraCount else ''}" if wanted else "-"
    return [node.name, rules.mode or "-", str(node.programmedRevision or "-"), share, node.state, message]


def _differences(nodes: Sequence[diagnosis_pb2.DiagnosedNode]) -> Iterator[str]:
    for node in nodes:
        for sign, some in (("-", node.rules.missing), ("+", node.rules.extra)):
            yield from (f"  {node.name} {sign} {line}" for line in some)


def _findings(found: Sequence[diagnosis_pb2.DiagnosisFinding]) -> Iterator[str]:
    for each in found:
        where = f"{each.node}: " if each.node else ""
        yield f"{each.type} {each.reason}: {where}{each.message}"
        yield f"  do: {each.fix}"


def _path(path: diagnosis_pb2.ServicePath, *, wide: bool) -> Iterator[str]:
    yield f"{getattr(path, 'from')} -> {path.to}: {path.verdict}"
    if wide or path.way.missing:
        lost = set(path.way.missing)
        yield from (f"  {'missing' if line in lost else '     ok'}  {line}" for line in path.way.links)

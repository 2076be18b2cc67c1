"""Whether every node's kernel says what service and endpoints say; the verdict in one line. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.diagnosis import backing
from controlplane.diagnosis.facts import ERROR, WARNING, Answer, Facts, Finding, counted, finding, some
from podplane.times import stamp
from podplane.v1 import diagnosis_pb2

AGREES, BEHIND, DIFFERS, NOT_PROGRAMMED = "Agrees", "Behind", "Differs", "NotProgrammed"
NO_ANSWER, NOT_CONNECTED = "NoAnswer", "NotConnected"
_REASONS = {
    BEHIND: "RulesBehind",
    DIFFERS: "RulesDiffer",
    NOT_PROGRAMMED: "RulesNotProgrammed",
    NO_ANSWER: "NodeNoAnswer",
    NOT_CONNECTED: "NodeNotConnected",
}
_LOG = "the agent's log on the node says more"


def rows(facts: Facts) -> list[diagnosis_pb2.DiagnosedNode]:
    """One for each node, by name."""
    return [_row(facts, answer) for answer in sorted(facts.answers, key=lambda answer: answer.name)]


def _row(facts: Facts, answer: Answer) -> diagnosis_pb2.DiagnosedNode:
    state, message, fix = _state(facts, answer)
    made = diagnosis_pb2.DiagnosedNode(name=answer.name, state=state, message=message, fix=fix)
    made.programmedRevision = answer.programmed
    if answer.seen is not None and state in (NO_ANSWER, NOT_CONNECTED):
        made.lastSeen.CopyFrom(stamp(answer.seen))
    if answer.rules is not None:
        made.rules.CopyFrom(answer.rules)
        made.rules.ClearField("ways")
    return made


def _state(facts: Facts, answer: Answer) -> tuple[str, str, str]:
    """(state, what is missing, what to do)"""
    rules = answer.rules
    behind = f"its rules are those of revision {answer.programmed}" if answer.programmed else "its rules are not known"
    if facts.has_rules and answer.programmed and answer.programmed < facts.revision:
        behind += f", and the service needs {facts.revision}"
    if not answer.connected:
        return (
            NOT_CONNECTED,
            behind,
            "look at the machine, and at podplane-nodeagent on it: its rules work on unchanged",
        )
    if rules is None:
        return NO_ANSWER, f"{answer.silence}; {behind}", f"look at podplane-nodeagent on the node; {_LOG}"
    if not facts.has_rules:
        return AGREES, "", ""
    if rules.serviceError:
        return NOT_PROGRAMMED, rules.serviceError, "change what the message names; it is tried again by itself"
    difference = _difference(rules)
    if rules.error:
        message = "; ".join(filter(None, (rules.error, difference)))
        return NOT_PROGRAMMED, message, f"mend what the message names on the node; {_LOG}"
    if not rules.known or rules.programmedRevision < facts.revision:
        told = "has been told of it" if rules.known and rules.knownRevision >= facts.revision else "has not heard of it"
        message = (
            f"has programmed revision {rules.programmedRevision}, the service needs {facts.revision}: the agent {told}"
        )
        return BEHIND, message, f"it takes a moment; where it stays, {_LOG}"
    if difference:
        return DIFFERS, difference, "somebody has changed the rules; the agent mends them, within seconds where it can"
    return AGREES, "", ""


def _difference(rules: diagnosis_pb2.ServiceRules) -> str:
    words = []
    for verb, lines, count in (
        ("missing", rules.missing, rules.missingCount),
        ("not ours", rules.extra, rules.extraCount),
    ):
        if count:
            words.append(f"{verb}: {lines[0]}{f' and {count - 1} more' if count > 1 else ''}")
    return "; ".join(words)


def findings(facts: Facts, found: Sequence[diagnosis_pb2.DiagnosedNode]) -> Iterator[Finding]:
    """What the nodes lack."""
    for row in found:
        if row.state != AGREES:
            silent = row.state in (NOT_CONNECTED, NO_ANSWER)
            yield finding(WARNING if silent else ERROR, _REASONS[row.state], row.message, row.fix, row.name)
        if row.rules.unreachable:
            lost = [f"{address}: {problem}" for address, problem in sorted(row.rules.unreachable.items())]
            fix = f"the agent mends routes within seconds where it can; its log and `podctl describe node {row.name}`"
            yield finding(ERROR, "NoRoute", f"endpoints that it cannot reach: {some(lost)}", fix, row.name)
        for obstacle in row.rules.obstacles:
            words = f"a firewall drops forwarded packets that no rule of its own takes: {obstacle}"
            fix = "let it take packets to and from the pods' ranges; iptables' own is passed in proxy mode iptables"
            yield finding(WARNING, "ForwardingClosed", words, fix, row.name)
    if facts.has_rules:
        yield from _local(facts)


def _local(facts: Facts) -> Iterator[Finding]:
    """Nodes on which a policy of Local leaves nobody."""
    spec = facts.service.spec
    ready = {each.node for each in backing.endpoints(facts) if each.state != backing.NOT_READY}
    bare = sorted(answer.name for answer in facts.answers if answer.name not in ready)
    if not ready or not bare:
        return
    where = f"is Local and no endpoint is on {some(bare)}"
    if spec.externalTrafficPolicy == "Local" and spec.type in ("NodePort", "LoadBalancer"):
        fix = f"send to {some(sorted(ready))}, have a load balancer ask the health check port, or set it to Cluster"
        words = f"externalTrafficPolicy {where}: what comes from outside is dropped there"
        yield finding(WARNING, "NoLocalEndpoint", words, fix)
    if spec.internalTrafficPolicy == "Local":
        fix = "run an endpoint on every node, or set it to Cluster"
        yield finding(WARNING, "NoLocalEndpoint", f"internalTrafficPolicy {where}: pods there get no answer", fix)


def verdict(
    facts: Facts,
    endpoints: Sequence[diagnosis_pb2.DiagnosedEndpoint],
    found: Sequence[diagnosis_pb2.DiagnosedNode],
    missing: Sequence[Finding],
) -> tuple[bool, str]:
    """(whether no link is missing, the line)"""
    agreeing = sum(row.state == AGREES for row in found)
    errors = [each for each in missing if each.type == ERROR]
    healthy = not errors and agreeing == len(found)
    ready = sum(each.state == backing.READY for each in endpoints)
    serving = ready or sum(each.state == backing.TERMINATING for each in endpoints)
    first = next(iter(errors or missing), None)
    what = f"{first.reason}: {f'{first.node}: ' if first.node else ''}{first.message}" if first is not None else ""
    is_name = facts.service.spec.type == "ExternalName"
    if not serving and not is_name:
        return False, f"{facts.key} answers nobody: {what or 'NoEndpoints: it has no ready endpoint'}"
    nodes = f"{'all' if agreeing == len(found) else f'{agreeing} of'} {counted(len(found), 'node')} agree"
    if len(found) == 1:
        nodes = f"{found[0].name} {'agrees' if agreeing else 'does not agree'}"
    if not healthy:
        return False, f"{facts.key}: {nodes}; {what}"
    if is_name:
        return True, f"{facts.key} is a name for {facts.service.spec.externalName}: DNS says so, no rule is needed"
    served = counted(serving, f"{'ready' if ready else 'terminating'} endpoint")
    if facts.is_headless:
        return True, f"{facts.key} is headless: DNS gives the addresses of its {served}, no rule is needed"
    more = f"; {what}" if what else ""
    return True, f"{facts.key}: {nodes} with its {served} (revision {facts.revision}){more}"

"""What podctl why prints."""

from __future__ import annotations

from podctl.diagnosis import lines
from podplane.v1 import diagnosis_pb2


def diagnosed() -> diagnosis_pb2.ServiceDiagnosis:
    made = diagnosis_pb2.ServiceDiagnosis(
        verdict="default/web: 1 of 2 nodes agree; RulesDiffer: node-2: x", revision=40
    )
    made.metadata.namespace, made.metadata.name = "default", "web"
    made.type, made.clusterIP = "NodePort", "10.96.0.10"
    made.ports.add(name="http", protocol="TCP", port=80, targetPort="web", nodePort=30080)
    made.endpoints.add(address="10.77.1.2", ports=[8080], pod="w1", node="node-1", state="Ready")
    good = made.nodes.add(name="node-1", state="Agrees", programmedRevision=41)
    good.rules.mode, good.rules.standing = "nftables", 9
    bad = made.nodes.add(name="node-2", state="Differs", programmedRevision=40, message="missing: a")
    bad.rules.mode, bad.rules.standing, bad.rules.missingCount, bad.rules.extraCount = "nftables", 8, 1, 2
    bad.rules.missing.append("a")
    bad.rules.extra.extend(["b", "c"])
    away = made.nodes.add(name="node-3", state="NotConnected", programmedRevision=3, message="its rules are old")
    away.lastSeen.seconds = 1000
    made.findings.add(type="Error", reason="RulesDiffer", message="missing: a", fix="wait", node="node-2")
    path = made.paths.add(to="10.96.0.10:80/TCP", node="node-2", verdict="lost on node-2, whose kernel lacks: a")
    setattr(path, "from", "node/node-2")
    path.way.links.extend(["jump", "a"])
    path.way.missing.append("a")
    return made


def test_the_verdict_comes_first_then_nodes_then_what_is_missing() -> None:
    assert list(lines(diagnosed(), 1075.0, wide=False)) == [
        "default/web: 1 of 2 nodes agree; RulesDiffer: node-2: x",
        "",
        "Service:     default/web (NodePort)",
        "Address:     10.96.0.10",
        "Ports:       http 80/TCP -> web (node port 30080)",
        "Endpoints:   10.77.1.2:8080 w1 on node-1 Ready",
        "Revision:    40",
        "",
        "NODE     MODE       REVISION   RULES    STATE          WHAT IS MISSING",
        "node-1   nftables   41         9/9      Agrees         -",
        "node-2   nftables   40         8/9 +2   Differs        missing: a",
        "node-3   -          3          -        NotConnected   not heard of for 75s; its rules are old",
        "",
        "Error RulesDiffer: node-2: missing: a",
        "  do: wait",
        "",
        "node/node-2 -> 10.96.0.10:80/TCP: lost on node-2, whose kernel lacks: a",
        "       ok  jump",
        "  missing  a",
    ]


def test_many_endpoints_are_cut_and_counted() -> None:
    made = diagnosed()
    made.readyCount = 1500
    for number in range(20):
        made.endpoints.add(address=f"10.77.2.{number}", ports=[8080], state="Ready")
    [shown] = [line for line in lines(made, 1075.0, wide=False) if line.startswith("Endpoints:")]
    assert shown.endswith("10.77.2.8:8080 Ready ...; 1500 are ready in all")


def test_wide_shows_every_rule_that_differs() -> None:
    shown = list(lines(diagnosed(), 1075.0, wide=True))
    assert shown[12:15] == ["  node-2 - a", "  node-2 + b", "  node-2 + c"]

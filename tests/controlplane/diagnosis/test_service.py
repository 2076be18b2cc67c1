"""From facts to the missing link, as scripts: no daemon, no kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.api.diagnosis import diagnosis
from controlplane.controllers import slices
from controlplane.diagnosis import paths
from controlplane.diagnosis.facts import Answer, Facts
from podplane import intstr
from podplane.errors import Invalid, NotFound
from podplane.v1 import diagnosis_pb2, node_pb2, pod_pb2, service_pb2

REVISION = 40


def service(**spec: Any) -> service_pb2.Service:
    made = service_pb2.Service()
    made.metadata.namespace, made.metadata.name, made.metadata.uid = "shop", "web", "u-web"
    made.spec.type, made.spec.clusterIP = "NodePort", "10.96.0.10"
    made.spec.selector["app"] = "web"
    port = made.spec.ports.add(name="http", protocol="TCP", port=80, nodePort=30080)
    port.targetPort.CopyFrom(intstr.of("web"))
    for name, value in spec.items():
        setattr(made.spec, name, value)
    return made


def pod(name: str, node: str = "node-1", *, ready: bool = True, port: str = "web", app: str = "web") -> pod_pb2.Pod:
    made = pod_pb2.Pod()
    made.metadata.namespace, made.metadata.name, made.metadata.uid = "shop", name, f"u-{name}"
    made.metadata.labels["app"] = app
    made.spec.nodeName = node
    made.spec.containers.add(name="main").ports.add(name=port, containerPort=8080)
    made.status.phase, made.status.podIP = "Running", f"10.77.{node[-1]}.{name[-1]}"
    made.status.conditions.add(type="Ready", status="True" if ready else "False")
    made.status.containerStatuses.add(name="main", ready=ready).state.running.SetInParent()
    return made


def answer(name: str, **fields: Any) -> Answer:
    """A node whose rules are right, but for what fields say of them."""
    node = node_pb2.Node()
    node.metadata.name = name
    node.status.addresses.add(type="InternalIP", address=f"198.18.0.{name[-1]}")
    rules = diagnosis_pb2.ServiceRules(mode="nftables", known=True, programmedRevision=REVISION, knownRevision=REVISION)
    rules.standing = 9
    for source in ("pod", "node", "outside"):
        for destination, address, number in (("ClusterIP", "10.96.0.10", 80), ("NodePort", "", 30080)):
            rules.ways.add(
                source=source, destination=destination, address=address, port=number, protocol="TCP", action="Forward",
                masquerade=source != "pod", endpoints=["10.77.1.1:8080", "10.77.2.2:8080"], links=["l1", "l2"],
            )  # fmt: skip
    for field, value in fields.items():
        setattr(rules, field, value)
    return Answer(node, True, rules.programmedRevision, 100.0, rules)


def facts(made: service_pb2.Service | None = None, *pods: pod_pb2.Pod, **fields: Any) -> Facts:
    made = made or service()
    matched = [each for each in pods if each.metadata.labels["app"] == "web"]
    written = slices.plan(made, matched, []).create if slices.is_managed(made) else []
    answers = [answer(f"node-{number}") for number in (1, 2, 3)]
    return replace(Facts(made, REVISION, pods, written, answers), **fields)


BOTH = (pod("w1"), pod("w2", "node-2"))


def reasons(found: diagnosis_pb2.ServiceDiagnosis) -> list[tuple[str, str, str]]:
    return [(each.type, each.reason, each.node) for each in found.findings]


def test_where_all_agree_the_verdict_says_so() -> None:
    found = diagnosis(facts(None, *BOTH))
    assert found.verdict == "shop/web: all 3 nodes agree with its 2 ready endpoints (revision 40)"
    assert (found.healthy, reasons(found)) == (True, [])
    assert [(each.pod, each.node, each.state, list(each.ports)) for each in found.endpoints] == [
        ("w1", "node-1", "Ready", [8080]), ("w2", "node-2", "Ready", [8080])]  # fmt: skip


def test_a_service_with_very_many_endpoints_is_told_within_bounds() -> None:
    pods = [pod(f"w{number}") for number in range(2500)]
    for number, each in enumerate(pods):
        each.status.podIP = f"10.78.{number // 250}.{number % 250 + 1}"
    found = diagnosis(facts(None, *pods), "node/node-1", "")
    assert (len(found.endpoints), found.readyCount) == (1000, 2500)
    assert "agree with its 2500 ready endpoints" in found.verdict
    assert found.ByteSize() < 100_000
    assert not any(row.rules.ways for row in found.nodes)


def test_a_selector_that_matches_nothing_names_the_nearest_pod() -> None:
    found = diagnosis(facts(None, pod("w1", app="wbe")))
    assert reasons(found) == [("Error", "NoPodMatches", "")]
    assert found.verdict == (
        "shop/web answers nobody: NoPodMatches: no pod in namespace shop has the labels app=web; "
        "the nearest, w1, has app=wbe"
    )
    assert not found.healthy


def crashing() -> pod_pb2.Pod:
    made = pod("w1", ready=False)
    made.status.containerStatuses[0].state.ClearField("running")
    waiting = made.status.containerStatuses[0].state.waiting
    waiting.reason, waiting.message = "CrashLoopBackOff", "back-off 10s restarting failed container"
    return made


def unscheduled() -> pod_pb2.Pod:
    made = pod("w1", ready=False)
    made.spec.nodeName = made.status.podIP = ""
    made.status.phase = "Pending"
    del made.status.containerStatuses[:]
    made.status.conditions.add(
        type="PodScheduled", status="False", message="0/3 nodes are available: 3 Insufficient cpu."
    )
    return made


def finished() -> pod_pb2.Pod:
    made = pod("w1", ready=False)
    made.status.phase = "Failed"
    made.status.containerStatuses[0].state.terminated.exitCode = 3
    made.status.containerStatuses[0].state.terminated.reason = "Error"
    return made


@pytest.mark.parametrize(
    ("bad", "reason", "words"),
    [
        (crashing, "PodNotReady", "CrashLoopBackOff: container main back-off 10s restarting failed container"),
        (unscheduled, "PodNotReady", "Pending: 0/3 nodes are available: 3 Insufficient cpu."),
        (finished, "PodFinished", "Error: container main exit code 3"),
        (
            lambda: pod("w1", ready=False),
            "PodNotReady",
            "container main runs, but its readiness probe has not succeeded",
        ),
    ],
)
def test_a_pod_that_is_not_ready_is_named_with_its_cause(
    bad: Callable[[], pod_pb2.Pod], reason: str, words: str
) -> None:
    found = diagnosis(facts(None, bad()))
    assert reasons(found)[0] == ("Error", reason, "")
    assert found.findings[0].message.endswith(words)
    assert found.verdict.startswith(f"shop/web answers nobody: {reason}: pod w1 ")
    beside = diagnosis(facts(None, bad(), pod("w2", "node-2")))
    assert (reasons(beside), beside.healthy) == ([("Warning", reason, "")], True)


def test_a_port_name_that_no_container_has_is_named() -> None:
    found = diagnosis(facts(None, pod("w1", port="http"), pod("w2", port="http")))
    assert reasons(found) == [("Error", "NoSuchPortName", "")]
    assert found.findings[0].message == (
        'targetPort "web" of port http/TCP is no port of pod w1, pod w2, which declares http=8080/TCP'
    )


def test_endpoints_that_are_not_written_yet_are_told() -> None:
    found = diagnosis(facts(None, *BOTH, slices=[]))
    assert reasons(found) == [("Error", "EndpointsBehind", "")]
    assert found.findings[0].message == "ready, but not among the endpoints: w1, w2"


def test_terminating_endpoints_serve_and_are_told() -> None:
    leaving = pod("w1")
    leaving.metadata.deletionTimestamp.seconds = 1
    found = diagnosis(facts(None, leaving))
    assert reasons(found) == [("Warning", "OnlyTerminating", "")]
    assert "agree with its 1 terminating endpoint (revision 40); OnlyTerminating: " in found.verdict


def test_services_without_rules_are_told_as_what_they_are() -> None:
    alias = service(type="ExternalName", externalName="db.example.org", clusterIP="")
    assert diagnosis(facts(alias)).verdict == ("shop/web is a name for db.example.org: DNS says so, no rule is needed")
    headless = diagnosis(facts(service(type="ClusterIP", clusterIP="None"), *BOTH))
    assert headless.verdict == (
        "shop/web is headless: DNS gives the addresses of its 2 ready endpoints, no rule is needed"
    )
    own = service()
    own.spec.selector.clear()
    assert reasons(diagnosis(facts(own))) == [("Error", "NoEndpoints", "")]


@pytest.mark.parametrize(
    ("fields", "state", "message"),
    [
        ({"missing": ["portals: a", "b"], "missingCount": 2}, "Differs", "missing: portals: a and 1 more"),
        ({"extra": ["x"], "extraCount": 1}, "Differs", "not ours: x"),
        ({"programmedRevision": 39}, "Behind",
         "has programmed revision 39, the service needs 40: the agent has been told of it"),
        ({"programmedRevision": 39, "knownRevision": 39}, "Behind",
         "has programmed revision 39, the service needs 40: the agent has not heard of it"),
        ({"serviceError": "it is refused"}, "NotProgrammed", "it is refused"),
        ({"error": "no nft", "missing": ["x"], "missingCount": 1}, "NotProgrammed", "no nft; missing: x"),
    ],
)  # fmt: skip
def test_a_node_that_differs_is_told_with_what_it_lacks(fields: dict[str, Any], state: str, message: str) -> None:
    rest = {key: value for key, value in fields.items() if not isinstance(value, list)}
    odd = answer("node-2", **rest)
    assert odd.rules is not None
    for key in ("missing", "extra"):
        getattr(odd.rules, key).extend(fields.get(key, []))
    found = diagnosis(facts(None, *BOTH, answers=[answer("node-1"), odd, answer("node-3")]))
    assert [row.state for row in found.nodes] == ["Agrees", state, "Agrees"]
    assert found.nodes[1].message == message
    assert not found.healthy
    assert found.verdict.startswith("shop/web: 2 of 3 nodes agree; ")
    assert found.verdict.endswith(f": node-2: {message}")


def test_silent_nodes_are_rows_with_the_age_of_their_rules() -> None:
    away = replace(answer("node-3"), connected=False, rules=None, programmed=31)
    mute = replace(answer("node-2"), rules=None, silence="no answer within 6 s")
    found = diagnosis(facts(None, *BOTH, answers=[answer("node-1"), mute, away]))
    assert [(row.state, row.message) for row in found.nodes[1:]] == [
        ("NoAnswer", "no answer within 6 s; its rules are those of revision 40"),
        ("NotConnected", "its rules are those of revision 31, and the service needs 40"),
    ]
    assert [row.lastSeen.seconds for row in found.nodes] == [0, 100, 100]
    assert reasons(found) == [("Warning", "NodeNoAnswer", "node-2"), ("Warning", "NodeNotConnected", "node-3")]
    assert not found.healthy


def test_a_policy_of_local_names_the_nodes_without_endpoints() -> None:
    found = diagnosis(facts(service(externalTrafficPolicy="Local", internalTrafficPolicy="Local"), *BOTH))
    assert [each.message for each in found.findings] == [
        "externalTrafficPolicy is Local and no endpoint is on node-3: what comes from outside is dropped there",
        "internalTrafficPolicy is Local and no endpoint is on node-3: pods there get no answer",
    ]
    assert found.healthy


def test_an_endpoint_without_a_route_is_told_and_loses_packets_where_it_is_the_only_one() -> None:
    cut = answer("node-3")
    assert cut.rules is not None
    cut.rules.unreachable["10.77.2.2"] = "no route leads to it"
    given = facts(None, *BOTH, answers=[answer("node-1"), answer("node-2"), cut])
    found = diagnosis(given)
    assert reasons(found) == [("Error", "NoRoute", "node-3")]
    assert found.verdict == (
        "shop/web: all 3 nodes agree; NoRoute: node-3: endpoints that it cannot reach: 10.77.2.2: no route leads to it"
    )
    assert not found.healthy
    [path] = follow(given, "node/node-3", "")
    assert path[3:] == (True, f"node-3 {LEADS} node-3's address; it has no route to 10.77.2.2:8080")
    for way in cut.rules.ways:
        del way.endpoints[0]
    [path] = follow(given, "node/node-3", "")
    assert path[3:] == (False, "lost on node-3, which has no route to 10.77.2.2:8080")


def follow(given: Facts, source: str, target: str) -> list[tuple[str, str, str, bool, str]]:
    made = paths.paths(given, source, target, diagnosis(given).endpoints)
    return [(getattr(each, "from"), each.to, each.node, each.arrives, each.verdict) for each in made]


LEADS = "leads it to one of w1 (10.77.1.1:8080, node-1), w2 (10.77.2.2:8080, node-2), which sees"


def test_a_packet_is_decided_by_the_node_that_it_comes_from_or_is_sent_to() -> None:
    given = facts(None, *BOTH)
    assert follow(given, "node/node-3", "cluster-ip") == [
        ("node/node-3", "10.96.0.10:80/TCP", "node-3", True, f"node-3 {LEADS} node-3's address")]  # fmt: skip
    # Another node's port: that node decides, and takes it for a packet from outside.
    assert follow(given, "node/node-3", "198.18.0.1:30080") == [
        ("node/node-3", "node/node-1:30080/TCP", "node-1", True, f"node-1 {LEADS} node-1's address")]  # fmt: skip
    sender = replace(given, sender=BOTH[1])
    assert follow(sender, "pod/w2", "") == [
        ("pod/w2", "10.96.0.10:80/TCP", "node-2", True, f"node-2 {LEADS} the client's address")]  # fmt: skip
    assert [path[:3] for path in follow(given, "outside", "")] == [
        ("outside", f"node/node-{n}:30080/TCP", f"node-{n}") for n in (1, 2, 3)]  # fmt: skip
    assert [path[0] for path in follow(given, "", "10.96.0.10:http")] == ["node/node-1", "node/node-2", "node/node-3"]


def test_a_packet_that_does_not_arrive_is_told_why() -> None:
    lossy, dropping, refusing = answer("node-1"), answer("node-2"), answer("node-3")
    for one, action in ((lossy, "Forward"), (dropping, "Drop"), (refusing, "Refuse")):
        assert one.rules is not None
        for way in one.rules.ways:
            way.action = action
            if one is lossy:
                way.missing.extend(["l2", "l9"])
    given = facts(service(externalTrafficPolicy="Local"), *BOTH, answers=[lossy, dropping, refusing])
    assert [path[3:] for path in follow(given, "outside", "node")] == [
        (False, "lost on node-1, whose kernel lacks: l2 and 1 more"),
        (False, "dropped on node-2: externalTrafficPolicy is Local, and no ready endpoint is there"),
        (False, "refused at once on node-3: no endpoint is ready"),
    ]
    away = replace(given, answers=[replace(answer("node-1"), connected=False, rules=None, programmed=7)])
    assert [path[3:] for path in follow(away, "node/node-1", "")] == [
        (False, "unknown: node node-1 is not connected; its rules are those of revision 7")]  # fmt: skip


def test_a_stranger_among_the_rules_may_take_the_packet() -> None:
    odd = answer("node-1", extraCount=1)
    assert odd.rules is not None
    odd.rules.extra.append("nat PODPLANE-SERVICES: -j RETURN")
    [path] = follow(facts(None, *BOTH, answers=[odd]), "node/node-1", "")
    assert not path[3]
    assert path[4].endswith("; unless a rule takes it that is not ours: nat PODPLANE-SERVICES: -j RETURN")


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("node/absent", "", 'nodes "absent" not found'),
        ("web", "", "--from web: it is pod/NAME, pod/NAMESPACE/NAME, node/NAME or outside"),
        ("", "192.0.2.1:80", "192.0.2.1 is no address of shop/web"),
        ("", "cluster-ip:81", "shop/web has no such port; it has http=80 (node port 30080)"),
    ],
)
def test_what_cannot_be_followed_is_refused(source: str, target: str, words: str) -> None:
    with pytest.raises((Invalid, NotFound), match=words.replace("(", r"\(").replace(")", r"\)")):
        follow(facts(None, *BOTH), source, target)


def test_more_paths_than_an_answer_holds_are_refused() -> None:
    crowd = [replace(answer("node-1"), node=node_pb2.Node()) for _ in range(101)]
    for number, each in enumerate(crowd):
        each.node.metadata.name = f"n{number}"
    with pytest.raises(Invalid, match="more than 100 ways"):
        follow(facts(None, *BOTH, answers=crowd), "outside", "")

"""Node sessions over real TLS: snapshot, deltas, statuses, and who may be which node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.nodes.session import digest
from podplane.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE
from podplane.v1 import config_pb2, event_pb2, node_pb2, pod_pb2, requests_pb2, service_pb2, session_pb2
from tests.controlplane.nodes.agent import Agent, pod, secret, until
from tests.controlplane.plane import Client, Plane, node_request, running, status


def bound(frames: list[session_pb2.ControlFrame]) -> list[str]:
    return [frame.bind.metadata.name for frame in frames if frame.WhichOneof("frame") == "bind"]


async def test_a_node_joins_with_a_bootstrap_token_and_connects_with_its_certificate(plane: Plane) -> None:
    _, request = node_request("system:node:node-1")
    joined = await plane.joining().call(
        "Bootstrap/Join", session_pb2.JoinRequest(nodeName="node-1", certificateSigningRequest=request)
    )
    assert joined.sessionAddress == f":{plane.control.node_port}"
    assert joined.certificateAuthority.encode() == plane.authority.certificate
    agent = Agent(plane, "node-1")
    await agent.connect()
    welcome = agent.heard[0].welcome
    assert (welcome.clusterID, welcome.podCIDR) == (joined.clusterID, "10.244.0.0/24")
    assert (welcome.clusterCIDR, welcome.serviceCIDR) == ("10.244.0.0/16", "10.96.0.0/16")


@pytest.mark.parametrize(
    ("common", "organization", "name", "words"),
    [
        ("system:node:node-2", "system:nodes", "node-1", "must be CN=system:node:node-1,O=system:nodes"),
        ("system:node:node-1", "system:masters", "node-1", "must be CN=system:node:node-1,O=system:nodes"),
        ("system:node:Node_1", "system:nodes", "Node_1", "nodeName"),
    ],
)
async def test_join_refuses_subjects_and_names_that_are_not_the_nodes(
    plane: Plane, common: str, organization: str, name: str, words: str
) -> None:
    _, request = node_request(common, organization)
    join = session_pb2.JoinRequest(nodeName=name, certificateSigningRequest=request)
    code, said = await status(plane.joining().call("Bootstrap/Join", join))
    assert (code, words in said) == ("INVALID_ARGUMENT", True), said


async def test_join_refuses_the_name_of_a_connected_node_and_renew_another_nodes(plane: Plane) -> None:
    agent = Agent(plane, "node-1")
    await agent.connect()
    _, request = node_request("system:node:node-1")
    join = session_pb2.JoinRequest(nodeName="node-1", certificateSigningRequest=request)
    assert (await status(plane.joining().call("Bootstrap/Join", join)))[0] == "ALREADY_EXISTS"
    assert "BEGIN CERTIFICATE" in (await agent.client.call("NodeSessions/Renew", join)).certificate
    join.nodeName = "node-2"
    assert (await status(agent.client.call("NodeSessions/Renew", join)))[0] == "PERMISSION_DENIED"


async def test_an_agent_cannot_be_another_node_than_its_certificate_says(plane: Plane) -> None:
    agent = Agent(plane, "node-2", client=plane.node("node-1"))
    agent.say(hello=session_pb2.Hello(nodeName="node-2", instanceID="x"))
    assert (await status(agent.call))[0] == "PERMISSION_DENIED"


async def test_the_snapshot_holds_own_pods_and_only_the_secrets_that_they_use(plane: Plane) -> None:
    admin = plane.person()
    for name in ("used", "unused"):
        await admin.call("Secrets/Create", secret(name))
    await admin.call("Services/Create", _service("web"))
    await admin.call("Pods/Create", pod("mine", secret="used"))
    await admin.call("Pods/Create", pod("theirs", "node-2", secret="unused"))
    await until(lambda: plane.control.sessions.hub.placement.pods("node-1"))
    content = await Agent(plane, "node-1").connect()
    assert bound(content) == ["mine"]
    objects = [frame.object for frame in content if frame.WhichOneof("frame") == "object"]
    assert [one.secret.metadata.name for one in objects if one.HasField("secret")] == ["used"]
    assert "web" in [one.service.metadata.name for one in objects if one.HasField("service")]
    assert [one.node.metadata.name for one in objects if one.HasField("node")] == ["node-1"]


def _service(name: str) -> service_pb2.Service:
    made = service_pb2.Service(metadata={"name": name})  # type: ignore[arg-type]
    made.spec.ports.add(port=80)
    made.spec.selector["app"] = name
    return made


async def test_deltas_bring_a_pods_objects_before_it_and_its_end(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    await admin.call("Secrets/Create", secret("used"))
    await admin.call("Pods/Create", pod("mine", secret="used", config="late"))
    await agent.hear("bind")
    kinds = [frame.WhichOneof("frame") for frame in agent.heard[-2:]]
    assert (kinds, agent.heard[-2].object.secret.data["key"]) == (["object", "bind"], b"1")
    await admin.call("ConfigMaps/Create", config_pb2.ConfigMap(metadata={"name": "late"}))  # type: ignore[arg-type]
    change = await agent.hear("object")
    assert (change.type, change.configMap.metadata.name) == ("ADDED", "late")
    await admin.call("Secrets/Apply", secret("used", b"2"))
    assert (await agent.hear("object")).secret.data["key"] == b"2"
    await admin.call("Pods/Delete", requests_pb2.DeleteRequest(name="mine", gracePeriodSeconds=7))
    assert (await agent.hear("update")).metadata.deletionGracePeriodSeconds == 7
    await admin.call("Pods/Delete", requests_pb2.DeleteRequest(name="mine", gracePeriodSeconds=0))
    gone = await agent.hear("unbind")
    assert (gone.name, gone.gracePeriodSeconds) == ("mine", 0)


async def test_a_pods_end_waits_for_every_nodes_rules(plane: Plane) -> None:
    admin, one, two = plane.person(), Agent(plane, "node-1"), Agent(plane, "node-2")
    for agent in (one, two):
        await agent.connect()
        agent.say(proxy=session_pb2.ProxyReport(programmedRevision=1))
    await admin.call("Services/Create", _service("web"))
    wanted = pod("web")
    wanted.metadata.labels["app"] = "web"
    made = await admin.call("Pods/Create", wanted)
    one.say(podStatus=_serving(made))
    slices = plane.control.objects.cache
    assert await until(lambda: [each for s in slices.list(ENDPOINT_SLICE) for each in s.obj.endpoints])
    await admin.call("Pods/Delete", requests_pb2.DeleteRequest(name="web", gracePeriodSeconds=30))
    await one.hear("update")
    (leaving,) = await until(
        lambda: [s for s in slices.list(ENDPOINT_SLICE) if any(each.conditions.terminating for each in s.obj.endpoints)]
    )
    one.say(proxy=session_pb2.ProxyReport(programmedRevision=leaving.revision))
    two.say(proxy=session_pb2.ProxyReport(programmedRevision=leaving.revision - 1))
    await until(lambda: plane.control.sessions.hub.rules_of("node-2") == leaving.revision - 1)
    assert "withdrawn" not in [frame.WhichOneof("frame") for frame in one.heard]
    two.say(proxy=session_pb2.ProxyReport(programmedRevision=leaving.revision, frozen=["default/web"]))
    await until(lambda: plane.control.sessions.hub.rules_of("node-2") == leaving.revision)
    assert "withdrawn" not in [frame.WhichOneof("frame") for frame in one.heard]
    two.say(proxy=session_pb2.ProxyReport(programmedRevision=leaving.revision))
    assert (await one.hear("withdrawn")).uid == made.metadata.uid
    again = Agent(plane, "node-1")  # the same instance, whose connection broke
    await again.connect()
    assert [f.withdrawn.uid for f in again.heard if f.WhichOneof("frame") == "withdrawn"] == [made.metadata.uid]


def _serving(made: pod_pb2.Pod) -> session_pb2.PodStatusReport:
    report = session_pb2.PodStatusReport(
        namespace="default", name=made.metadata.name, uid=made.metadata.uid, sequence=1
    )
    report.status.phase, report.status.podIP = "Running", "10.244.0.5"
    report.status.conditions.add(type="Ready", status="True")
    return report


async def test_a_secret_leaves_the_node_with_its_last_pod_and_comes_back_as_it_is_then(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    await admin.call("Secrets/Create", secret("used"))
    for name in ("first", "second"):
        await admin.call("Pods/Create", pod(name, secret="used"))
        await agent.hear("bind")
    for name, heard in (("first", ["unbind"]), ("second", ["unbind", "object"])):
        agent.heard.clear()
        await admin.call("Pods/Delete", requests_pb2.DeleteRequest(name=name, gracePeriodSeconds=0))
        await agent.hear(heard[-1])
        assert [frame.WhichOneof("frame") for frame in agent.heard] == heard
    gone = agent.heard[-1].object
    assert (gone.type, gone.secret.metadata.namespace, gone.secret.metadata.name) == ("DELETED", "default", "used")
    await admin.call("Secrets/Apply", secret("used", b"2"))
    await admin.call("Pods/Create", pod("third", secret="used"))
    assert (await agent.hear("object")).secret.data["key"] == b"2"
    await agent.hear("bind")


async def test_every_reported_transition_is_seen_in_order_and_none_twice(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    made = await admin.call("Pods/Create", pod("mine"))
    watch = admin.call("Pods/Watch", requests_pb2.WatchRequest(resourceVersion=made.metadata.resourceVersion))
    await agent.hear("bind")
    for sequence, phase in ((1, "Pending"), (2, "Running"), (1, "Pending"), (2, "Running"), (3, "Dancing")):
        agent.report(made, sequence, phase)
    agent.report(made, 4, "Succeeded")
    agent.report(made, 5, "Running")
    seen: list[str] = []
    async with asyncio.timeout(5):
        async for frame in watch:
            seen += [event.object.status.message for event in frame.events]
            if "report 4" in seen:
                break
    assert seen == ["report 1", "report 2", "report 4"], "none twice, and none that cannot be"
    agent.report(made, 6, "Succeeded", terminated=True)
    read = await admin.call("Pods/Get", requests_pb2.GetRequest(name="mine"))
    assert (read.status.phase, read.status.qosClass) == ("Succeeded", "BestEffort")


@pytest.mark.parametrize("phase", ["Succeeded", "Dancing"])
async def test_a_deleted_pod_goes_when_its_node_says_that_it_has_ended(plane: Plane, phase: str) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    made = await admin.call("Pods/Create", pod("mine"))
    await agent.hear("bind")
    await admin.call("Pods/Delete", requests_pb2.DeleteRequest(name="mine"))
    await agent.hear("update")
    agent.report(made, 1, "Running")
    agent.report(made, 2, phase, terminated=True)
    assert (await agent.hear("unbind")).uid == made.metadata.uid
    assert (await status(admin.call("Pods/Get", requests_pb2.GetRequest(name="mine"))))[0] == "NOT_FOUND"


async def test_a_report_for_another_nodes_pod_changes_nothing(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    theirs = await admin.call("Pods/Create", pod("theirs", "node-2"))
    mine = await admin.call("Pods/Create", pod("mine"))
    agent.report(theirs, 1, "Failed")
    agent.report(mine, 1, "Running")
    cache = plane.control.objects.cache
    await until(lambda: cache.get(POD, "default", "mine").obj.status.phase == "Running")  # type: ignore[union-attr]
    assert (await admin.call("Pods/Get", requests_pb2.GetRequest(name="theirs"))).status.phase == "Pending"


async def test_a_node_is_registered_with_a_range_of_its_own_and_its_labels(plane: Plane) -> None:
    for name in ("node-1", "node-2"):
        agent = Agent(plane, name)
        await agent.connect()
        agent.report_node()
    cache = plane.control.objects.cache

    def reported() -> list[node_pb2.Node]:
        found = [stored.obj for stored in cache.list(NODE)]
        return found if len(found) == 2 and all(one.status.capacity for one in found) else []

    nodes = await until(reported)
    assert [one.spec.podCIDR for one in nodes] == ["10.244.0.0/24", "10.244.1.0/24"]
    assert nodes[0].metadata.labels["kubernetes.io/arch"] == "amd64"
    assert nodes[0].metadata.labels["kubernetes.io/hostname"] == "node-1"
    ready = next(condition for condition in nodes[0].status.conditions if condition.type == "Ready")
    assert (ready.status, ready.reason) == ("True", "AgentReady")


@pytest.mark.parametrize("together", [False, True])
async def test_a_repeated_event_is_counted_in_one_object(plane: Plane, together: bool) -> None:
    agent = Agent(plane, "node-1")
    await agent.connect()
    event = event_pb2.Event(reason="BackOff", message="again", type="Warning")
    event.involvedObject.kind, event.involvedObject.namespace, event.involvedObject.name = "Pod", "default", "web"
    frames = [session_pb2.AgentFrame(event=event)] * 3
    for frame in [session_pb2.AgentFrame(batch=session_pb2.AgentFrames(frames=frames))] if together else frames:
        agent.say(**{name.name: value for name, value in frame.ListFields()})
    admin = plane.person()

    async def listed() -> list[event_pb2.Event]:
        request = requests_pb2.ListRequest(namespace="default", fieldSelector="involvedObject.name=web")
        return list((await admin.call("Events/List", request)).items)

    async with asyncio.timeout(5):
        while not (found := await listed()) or found[0].count < 3:
            await asyncio.sleep(0.01)
    assert [(one.count, one.source.host) for one in found] == [(3, "node-1")]


async def test_a_batch_in_a_batch_ends_the_session(plane: Plane) -> None:
    agent = Agent(plane, "node-1")
    await agent.connect()
    inner = session_pb2.AgentFrame(batch=session_pb2.AgentFrames())
    agent.say(batch=session_pb2.AgentFrames(frames=[inner]))
    assert (await status(agent.call))[0] == "INVALID_ARGUMENT"


async def test_a_second_agent_of_a_live_name_is_refused_and_the_same_one_comes_back(plane: Plane) -> None:
    first = Agent(plane, "node-1", "one")
    await first.connect()
    second = Agent(plane, "node-1", "two")
    second.say(hello=session_pb2.Hello(nodeName="node-1", instanceID="two"))
    code, words = await status(second.call)
    assert (code, "another agent is connected as node-1" in words) == ("ALREADY_EXISTS", True)
    again = Agent(plane, "node-1", "one")
    await again.connect()
    assert (await first.hear("goodbye")).reconnect is False
    again.hang_up()
    await until(lambda: "node-1" not in plane.control.sessions.connected())
    third = Agent(plane, "node-1", "two")
    await third.connect()


async def test_a_silent_agents_session_ends(tmp_path: Path) -> None:
    async with running(tmp_path / "state", heartbeat=1, node_grace=2) as plane:
        agent = Agent(plane, "node-1")
        await agent.connect()
        code, words = await status(agent.call)
        assert (code, words) == ("UNAVAILABLE", "no heartbeat from node-1 for 2 s: connect again")


async def test_pods_that_the_store_does_not_know_are_removed_or_kept_by_what_the_agent_remembers(plane: Plane) -> None:
    log = plane.control.log
    trace = [session_pb2.PodTrace(uid="u1", namespace="default", name="old", phase="Running")]
    known = Agent(plane, "node-1")
    await known.connect(clusterID=log.cluster_id, epoch=log.epoch, lastRevision=1, pods=trace)
    verdict = await known.hear("verdict")
    assert (verdict.uid, verdict.keep) == ("u1", False)
    for name, remembers in (
        ("node-2", {"clusterID": "other", "epoch": log.epoch, "lastRevision": 1}),
        ("node-3", {"clusterID": log.cluster_id, "epoch": "other", "lastRevision": 1}),
        ("node-4", {"clusterID": log.cluster_id, "epoch": log.epoch, "lastRevision": 10**9}),
    ):
        agent = Agent(plane, name)
        await agent.connect(pods=trace, **remembers)
        verdict = await agent.hear("verdict")
        assert (verdict.uid, verdict.keep) == ("u1", True), name


async def test_a_differing_digest_brings_a_snapshot_and_an_equal_one_nothing(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    made = await admin.call("Pods/Create", pod("mine"))
    await admin.call("Services/Create", _service("web"))
    await until(lambda: plane.control.sessions.hub.placement.pods("node-1"))
    await agent.connect()
    revision = agent.heard[-1].revision
    held = next(frame.bind for frame in agent.heard if frame.WhichOneof("frame") == "bind")
    agent.say(acknowledge=session_pb2.Acknowledge(revision=revision + 100))
    right = digest([(made.metadata.uid, int(held.metadata.resourceVersion))])
    services = digest((one.obj.metadata.uid, one.revision) for one in plane.control.objects.cache.list(SERVICE))
    agent.say(digest=session_pb2.Digest(pods=right, services=services))
    agent.say(digest=session_pb2.Digest(pods=right, services="wrong"))
    before = len(agent.heard)
    await agent.hear("snapshotEnd")
    assert bound(agent.heard[before:]) == ["mine"]
    assert len([1 for frame in agent.heard if frame.WhichOneof("frame") == "snapshotBegin"]) == 2


async def test_a_node_reads_what_its_pods_use_and_is_refused_the_rest_in_the_same_words(plane: Plane) -> None:
    admin, node = plane.person(), plane.node("node-1")
    for name in ("used", "unused"):
        await admin.call("Secrets/Create", secret(name))
    await admin.call("Pods/Create", pod("mine", secret="used"))
    await admin.call("Pods/Create", pod("theirs", "node-2"))
    await until(lambda: plane.control.sessions.hub.placement.pods("node-2"))
    read = await node.call("Secrets/Get", requests_pb2.GetRequest(name="used"))
    assert read.data["key"] == b"1"
    for name in ("unused", "absent"):
        assert await status(node.call("Secrets/Get", requests_pb2.GetRequest(name=name))) == (
            "PERMISSION_DENIED",
            f'secrets "{name}" is forbidden: User "system:node:node-1" cannot get resource "secrets" '
            'in API group "" in the namespace "default"',
        )
    await _refused(node, "Pods/Get", requests_pb2.GetRequest(name="theirs"))
    await _refused(node, "Secrets/List", requests_pb2.ListRequest())
    await _refused(node, "Pods/Delete", requests_pb2.DeleteRequest(name="mine"))
    await _refused(node, "Nodes/Get", requests_pb2.GetRequest(name="node-2"))
    assert (await node.call("Pods/Get", requests_pb2.GetRequest(name="mine"))).spec.nodeName == "node-1"


async def _refused(client: Client, method: str, request: Any) -> None:
    assert (await status(client.call(method, request)))[0] == "PERMISSION_DENIED", method

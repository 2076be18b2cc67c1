"""A service that the kernel or its tool refuses: it holds up no other and takes nothing from any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import pytest

from nodeagent.proxy.elements import Changes
from nodeagent.proxy.iptables import adopt
from nodeagent.proxy.iptables.isolate import Entries, Entry, Isolator
from nodeagent.proxy.iptables.kernel import Iptables
from nodeagent.proxy.iptables.rules import Part, Tables, assemble, part
from nodeagent.proxy.ipvs import ipvs, table
from nodeagent.proxy.ipvs.ruleset import Ruleset, connect
from nodeagent.proxy.ipvs.table import Update
from nodeagent.proxy.mode import RulesRefused, Step, Wanted
from nodeagent.proxy.nftables import nftables
from nodeagent.proxy.services import ServicePort, ports_of
from nodeagent.proxy.sync import ProxySync
from nodeagent.proxy.writer import Writer
from podplane.v1 import service_pb2
from tests.net.kernel import CLIENT, NODE, World, command, inside, until
from tests.net.proxied import PACE, RANGES, WEB, A, B, Node, asked_meanwhile, empty, on_node, ours, proxied, web
from tests.nodeagent.proxy.objects import service, slice_of


def joined(entries: Entries) -> Tables:
    return assemble((entry.part for entry in entries.values()), RANGES)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("-p tcp -j DNAT --to-destination 10.77.1.2:99999", "(line: -A PODPLANE-SVC-BAD"),  # iptables names the line
        ("-j REJECT --reject-with icmp-port-unreachable", "iptables-"),  # the kernel refuses it, in nat: no line
    ],
)
def test_a_service_that_iptables_refuses_holds_up_no_other(flavoured: World, rule: str, words: str) -> None:
    async def scenario(node: Node) -> None:
        iptables = await Iptables.open()
        ports = ports_of(web()[0], [web(B)[1]], "node-1")
        good = {f"default/s{number}": Entry(ports, Part()) for number in range(9)}
        good["default/web"] = Entry(ports, part(ports, RANGES))
        bad = Entry(ports, Part({"PODPLANE-SVC-BAD": (rule,)}, portals=("-j PODPLANE-SVC-BAD",)))
        isolator = Isolator(iptables.apply, joined)
        standing, errors = await isolator.apply({}, {**good, "default/bad": bad})
        await iptables.close()
        assert list(errors) == ["default/bad"]
        assert words in errors["default/bad"]
        assert standing == good
        assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")

    on_node(flavoured, scenario)


def test_a_restarted_agent_that_searches_for_a_bad_service_takes_no_rule_from_others(flavoured: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0], empty()], [web(B)[1]])
        ways = (node.world.client, NODE, 30080), (node.world.client, WEB, 80)
        async with asked_meanwhile(node, *ways) as answered:
            iptables = await Iptables.open()
            standing = {key: Entry(None, found) for key, found in adopt.parts(await iptables.found()).items()}
            assert sorted(standing) == ["default/empty", "default/web"]
            ports = ports_of(web()[0], [web(A, B)[1]], "node-1")
            refused = Part({"PODPLANE-SVC-BAD": ("-j REJECT",)}, portals=("-j PODPLANE-SVC-BAD",))
            wanted = {f"default/{name}": Entry((), Part()) for name in "bcdefghi"}
            wanted |= {"default/a": Entry((), refused), "default/web": Entry(ports, part(ports, RANGES))}
            isolator = Isolator(iptables.apply, joined)
            stands, errors = await isolator.apply(standing, wanted)
            await iptables.close()
        assert len(answered) > 4
        assert list(errors) == ["default/a"]
        assert sorted(stands) == sorted({*wanted} - {"default/a"})
        assert await node.ask(node.world.client, NODE, 30080) in (("a", "10.77.1.1"), ("b", "10.77.1.1"))

    on_node(flavoured, scenario)


def test_a_restarted_agent_keeps_the_rules_of_a_service_that_it_cannot_program(moded: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0], empty()], [web(B)[1]])
        whole = ours(node.world.node)
        successor = Node(node.world, ProxySync(node.world.mode, node.world.directory, PACE), node.pods)
        broken = web()[0]
        broken.spec.clusterIP = "fd00::1"
        async with proxied(successor):
            # Its rules go on leading to b: whoever waits for b to be out of them must not hear that it is.
            assert "not an IPv4 address" in await successor.program([broken, empty()], [web(A)[1]])
            assert successor.said[-1].frozen == {"default/web"}
            assert ours(node.world.node) == whole
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")
            assert await successor.program([web()[0], empty()], [web(A)[1]]) == ""
            assert successor.said[-1].frozen == frozenset()
            assert await node.ask(node.world.client, NODE, 30080) == ("a", "10.77.1.1")

    on_node(moded, scenario)


def test_a_service_that_nftables_refuses_holds_up_no_other(world: World) -> None:
    async def scenario(node: Node) -> None:
        mode = await nftables.open()
        try:
            good = ports_of(web()[0], [web(B)[1]], "node-1")
            bad = tuple(port._replace(cluster_ip="10.96.0.300") for port in good)
            taken = tuple(port._replace(cluster_ip="10.96.0.77") for port in good)
            services = {"default/bad": bad, "default/late": taken, "default/web": good}
            others = {f"default/s{n}": (good[0]._replace(cluster_ip=f"10.96.1.{n}", node_port=0),) for n in range(99)}
            named = {
                key: tuple(port._replace(service=key) for port in ports)
                for key, ports in sorted({**services, **others}.items())
            }
            errors = await mode.apply(Wanted(RANGES, named))
            assert sorted(errors) == ["default/bad", "default/late", "default/web"]
            assert "10.96.0.300" in errors["default/bad"]
            # Who asked first for the node port is not to be had: now the other one gets it.
            assert errors["default/web"].startswith("tcp 30080 is already that of default/")
            # Though nothing is said of the one who was refused as well: he is still owed.
            left = {key: ports for key, ports in named.items() if key != "default/bad"}
            errors = await mode.apply(Wanted(RANGES, left, step=Step(named, ["default/bad"])))
            assert errors == {"default/web": "tcp 30080 is already that of default/late"}
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")
            assert await node.ask(node.world.node, "10.96.1.42", 80) == ("b", "10.77.1.1")
        finally:
            await mode.close()

    on_node(world, scenario)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_refused_service_had_is_nobody_elses(world: World, restarted: bool) -> None:
    def ports(name: str, ip: str, node_port: int) -> tuple[ServicePort, ...]:
        first = ports_of(web()[0], [web(B)[1]], "node-1")[0]
        return (first._replace(service=f"default/{name}", cluster_ip=ip, node_port=node_port),)

    async def scenario(node: Node) -> None:
        mode = await nftables.open()
        try:
            had = {"default/a": ports("a", "10.96.1.1", 30092), "default/kept": ports("kept", "10.96.1.2", 30091)}
            assert await mode.apply(Wanted(RANGES, had)) == {}
            before = ours(node.world.node)
            if restarted:
                await mode.close()
                mode = await nftables.open()
            # What the one who is refused gives up he keeps: nobody else has it.
            wants = {"default/a": ports("a", "10.96.1.1", 30091), "default/b": ports("b", "10.96.1.3", 30092)}
            errors = await mode.apply(Wanted(RANGES, wants, frozenset({"default/kept"})))
            assert errors["default/a"] == "tcp 30091 is already that of default/kept"
            assert ours(node.world.node) == before
            assert errors["default/b"] == "tcp 30092 is already that of default/a"
        finally:
            await mode.close()

    on_node(world, scenario)


def test_a_service_that_nft_refuses_holds_up_no_other_in_mode_ipvs(balancing: World) -> None:
    async def scenario(node: Node) -> None:
        mode = await ipvs.open("rr", node.world.directory)
        try:
            web_ports = ports_of(web()[0], [web(B)[1]], "node-1")
            good = web_ports[0]._replace(node_port=0)
            wanted: dict[str, tuple[ServicePort, ...]] = {
                f"default/s{n}": (good._replace(service=f"default/s{n}", cluster_ip=f"10.96.1.{n}"),) for n in range(9)
            }
            bad = good._replace(service="default/bad", cluster_ip="10.96.0.77", node_port=30099)
            assert await mode.apply(Wanted(RANGES, {**wanted, "default/bad": (bad,)})) == {}
            # Beside others that change, and that come.
            wanted["default/s3"] = (wanted["default/s3"][0]._replace(affinity=60),)
            wanted["default/web"] = web_ports
            for _ in range(2):
                errors = await mode.apply(Wanted(RANGES, {**wanted, "default/bad": (bad._replace(node_port=99999),)}))
                assert list(errors) == ["default/bad"]
                assert errors["default/bad"].startswith("nft: ")
                for address, port in ((NODE, 30080), ("10.96.1.3", 80), ("10.96.1.8", 80), (NODE, 30099)):
                    assert await node.ask(node.world.client, address, port) == ("b", "10.77.1.1")
            same, written = Wanted(RANGES, {**wanted, "default/bad": (bad._replace(node_port=99999),)}), mode.written
            assert await mode.apply(same) == errors
            assert mode.written == written
            taken = (good._replace(service="default/late", cluster_ip="10.96.0.78", node_port=30099),)
            both = {**wanted, "default/bad": (bad._replace(node_port=99999),), "default/late": taken}
            assert (await mode.apply(Wanted(RANGES, both)))["default/late"].endswith("is already that of default/bad")
            assert await mode.apply(Wanted(RANGES, {**wanted, "default/late": taken})) == {}
        finally:
            await mode.close()

    on_node(balancing, scenario)


@pytest.mark.parametrize("key_and_verdict", [("tcp . 99999", "goto refuse"), ("tcp . 30080", "goto nowhere")])
def test_the_table_of_mode_ipvs_stands_though_nft_refuses_a_change(
    world: World, key_and_verdict: tuple[str, str]
) -> None:
    key, verdict = key_and_verdict
    bad = Update(Changes(added=[("", ("node_ports", key), (verdict, ""))]))

    def refuses(rules: Ruleset) -> None:
        rules.write(Update(Changes(), base=table.base(RANGES)), "one")
        seen = rules.note()
        with pytest.raises(RulesRefused, match="nft: "):
            rules.write(bad, "two")
        assert (rules.certain, rules.stands("one"), rules.stands("two"), rules.note()) == (True, True, False, seen)
        # What was refused hides no change by others.
        command(world.node, f"nft flush chain ip {table.TABLE} postrouting")
        with pytest.raises(RulesRefused):
            rules.write(bad, "two")
        assert not rules.stands("one")

    with_ruleset(world, refuses)


def test_elements_of_mode_ipvs_are_by_netlink_what_nft_makes_of_its_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    elements = {
        ("served", "10.96.0.10 . tcp . 80"): ("", "default/web"),
        ("closed", "10.96.0.11 . udp . 53"): ("drop", "default/dns"),
        ("node_ports", "tcp . 30080"): ("goto refuse", "default/web"),
        ("host_ports_at", "192.0.2.1 . tcp . 8080"): ("goto refuse", ""),
        **table.listed({"10.96.0.10"}),
    }
    come, gone = table.changes({}, elements), table.changes(elements, {})

    def compare(rules: Ruleset) -> None:
        rules.write(Update(Changes(), base=table.base(RANGES)), "none")
        empty = rules.note()
        rules.write(Update(come), "some")
        by_netlink = rules.note()
        assert (rules.certain, rules.stands("some"), by_netlink == empty) == (True, True, False)
        rules.write(Update(gone), "none")
        assert rules.note() == empty
        rules.write(Update(come, base=table.base(RANGES)), "some")
        assert rules.note() == by_netlink

    with_ruleset(world, compare)
    assert caplog.messages == [], "nft was asked"


def with_ruleset(world: World, work: Callable[[Ruleset], None]) -> None:
    def run() -> None:
        with connect() as connection, contextlib.closing(Writer()) as writer:
            work(Ruleset(connection, writer))

    inside(world.node, run)


def heard(node: Node) -> list[tuple[str, str, str]]:
    """What the proxy complains of from now on: (service, reason, message)."""
    found: list[tuple[str, str, str]] = []
    node.proxy.on_complaint(lambda service, it: found.append((service.metadata.name, it.reason, it.message)))
    return found


def balanced(name: str, address: str, check: int = 0, node_port: int = 30090) -> service_pb2.Service:
    """A service behind a load balancer, which has said its address."""
    made = service(name, address, [("", "TCP", 80, node_port, 8080)])
    made.spec.type = "LoadBalancer"
    made.status.loadBalancer.ingress.add(ip="192.0.2.50")
    if check:
        made.spec.externalTrafficPolicy, made.spec.healthCheckNodePort = "Local", check
    return made


def test_of_two_services_that_want_one_address_the_younger_goes_without_it_and_says_so(moded: World) -> None:
    async def scenario(node: Node) -> None:
        told = heard(node)
        # By name the younger comes first.
        one, another = balanced("one", "10.96.0.31"), balanced("another", "10.96.0.32", node_port=30091)
        another.metadata.creationTimestamp.seconds = 1
        slices = [slice_of(name, [("", "TCP", 80, 0, 8080)], [end]) for name, end in (("one", A), ("another", B))]
        command(node.world.client, f"ip route replace 192.0.2.50 via {NODE}")
        async with proxied(node):
            await node.program([one], slices)
            assert told == []
            said = await node.program([another, one], slices)
            message = "192.0.2.50:80/TCP is already that of default/one"
            assert told == [("another", "FailedToProgramService", message)]
            assert (said, node.said[-1].frozen) == (f"default/another: {message}", frozenset())
            assert await node.answers(node.world.client, "192.0.2.50", 80) == {"a"}
            # All else of its own it has.
            assert await node.ask(node.world.client, NODE, 30091) == ("b", "10.77.1.1")
            assert await node.ask(node.pods["a"], "10.96.0.32", 80) == ("b", A)
            found = await node.proxy.inspect("default/another")
            assert (found.serviceError, found.missingCount, found.extraCount) == (message, 0, 0)
            assert await node.program([another], slices) == ""
            assert await node.ask(node.world.client, "192.0.2.50", 80) == ("b", "10.77.1.1")
            assert (await node.proxy.inspect("default/another")).serviceError == ""
            assert len(told) == 1

    on_node(moded, scenario)


def test_a_health_check_port_that_somebody_has_is_told_and_had_once_it_is_free(moded: World) -> None:
    async def scenario(node: Node) -> None:
        told = heard(node)
        squatter = node.world.serve(node.world.node, "squatter", "0.0.0.0", 32001)
        wanted = balanced("checked", "10.96.0.33", check=32001)
        placed = slice_of("checked", [("", "TCP", 80, 0, 8080)], [A])
        async with proxied(node):
            said = await node.program([wanted], [placed])
            [(name, reason, message)] = told
            assert (name, reason) == ("checked", "FailedToStartServiceHealthcheck")
            assert message == "cannot answer health checks on port 32001: Address already in use"
            assert said == f"default/checked: {message}"
            assert await node.ask(node.world.client, NODE, 30090) == ("a", CLIENT)
            squatter.close()
            await asyncio.to_thread(until, lambda: node.said[-1].error == "", "the health check is answered")
            assert len(told) == 1

    on_node(moded, scenario)


def test_the_longest_names_there_are_can_be_programmed(moded: World) -> None:
    async def scenario(node: Node) -> None:
        made, placed = web(B)
        made.metadata.namespace = placed.metadata.namespace = "n" * 63
        made.metadata.name = placed.metadata.labels["kubernetes.io/service-name"] = "s" * 63
        made.spec.ports[0].name = placed.ports[0].name = "p" * 15
        async with proxied(node):
            assert await node.program([made], [placed]) == ""
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")
        whole = ours(node.world.node)
        successor = Node(node.world, ProxySync(node.world.mode, node.world.directory, PACE), node.pods)
        async with proxied(successor):
            made.spec.clusterIP = "fd00::1"  # so that what it has must be found by its name
            assert "not an IPv4 address" in await successor.program([made], [placed])
            assert ours(node.world.node) == whole

    on_node(moded, scenario)

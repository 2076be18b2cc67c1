"""What services have in the kernel's table and virtual servers is known again, by their names."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.proxy.ipvs import adopt, lines, ruleset, table
from nodeagent.proxy.ipvs.marks import Marks
from nodeagent.proxy.ipvs.node import union
from nodeagent.proxy.ipvs.plan import Part, Server, mark_names, part
from nodeagent.proxy.ipvs.servers import Real, Standing, Virtual
from nodeagent.proxy.ipvs.table import Update
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import Endpoint, ServicePort
from tests.net.kernel import World, inside

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
HERE, THERE = Endpoint("10.77.1.2", 8080, local=True), Endpoint("10.77.2.9", 8080)
LONGEST = f"{'n' * 63}/{'s' * 63}"


def ports() -> Iterator[ServicePort]:
    plain = ServicePort("default/plain", "http", "tcp", "10.96.0.10", 80, 30080, (HERE, THERE), affinity=60)
    yield plain
    yield plain._replace(service="default/udp", protocol="udp", cluster_ip="10.96.0.11", node_port=0)
    local = plain._replace(local_endpoints=(HERE,), external_local=True)
    yield local._replace(service="default/local", cluster_ip="10.96.0.12", node_port=30081)
    both = local._replace(internal_local=True, load_balancer_ips=("192.0.2.1",))
    yield both._replace(service="default/both", cluster_ip="10.96.0.13", node_port=30082)
    yield plain._replace(service=LONGEST, cluster_ip="10.96.0.14", node_port=30083, endpoints=())


def standing(parts: dict[str, Part]) -> Standing:
    def virtual(server: Server) -> Virtual:
        leaving = {("10.77.1.9", 8080): Real(0, 3)}
        return Virtual(server.scheduler, server.affinity, {target: Real(1) for target in server.targets} | leaving)

    servers = union(parts.values()).servers
    return {front: virtual(server) for front, server in servers.items() if server.targets}


def test_what_is_in_the_kernel_is_what_was_made_and_can_be_written_again(world: World) -> None:
    marks = Marks({})
    made = {
        port.service: part([port], RANGES, "rr", marks.settle(port.service, mark_names([port]))) for port in ports()
    }

    def write(parts: dict[str, Part]) -> tuple[str, str]:
        whole = union(parts.values())
        elements = {**whole.elements, **table.listed(whole.addresses)}
        ruleset.load(Update(table.changes({}, elements), whole.chains, base=table.base(RANGES)).text)
        return ruleset.text(), ruleset.read()

    text, listed = inside(world.node, lambda: write(made))
    found = adopt.parts(lines.listed(listed).elements, adopt.chains(text), standing(made))
    assert found.keys() == made.keys()
    for service, had in made.items():
        again = found[service]
        assert again.servers == {front: server for front, server in had.servers.items() if server.targets}, service
        assert (again.addresses, again.elements) == (had.addresses, had.elements), service
        assert again.chains.keys() == had.chains.keys()
    again_text, _ = inside(world.node, lambda: write(found))
    assert sorted(again_text.splitlines()) == sorted(text.splitlines())

"""The ledger of service addresses follows every write, whoever makes it."""

from __future__ import annotations

from controlplane.api.admission import Admission
from controlplane.api.allocate import PortKey
from controlplane.objects import Objects
from controlplane.objects.addresses import ledger_of
from podplane.kinds import SERVICE
from podplane.v1 import service_pb2
from tests.controlplane.objects.world import World


def service(name: str, address: str = "", port: int = 0) -> service_pb2.Service:
    made = service_pb2.Service()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.type = "NodePort"
    if address:
        made.spec.clusterIP = address
    made.spec.ports.add(port=80, protocol="TCP", **({"nodePort": port} if port else {}))
    return made


async def test_what_a_service_holds_is_taken_until_it_lets_go(world: World) -> None:
    ledger = ledger_of(world.log, world.cache)
    held: tuple[str, PortKey] = ("10.96.0.5", (30001, "TCP"))

    def taken() -> tuple[bool, bool]:
        found = ledger.taken("default", "other")
        return held[0] in found.addresses, held[1] in found.ports

    assert taken() == (False, False)
    await world.objects.create(service("a", *(held[0], held[1][0])))
    assert taken() == (True, True)

    def move(live: service_pb2.Service) -> bool:
        live.spec.ports[0].nodePort = 30002
        return True

    await world.objects.mutate(SERVICE, "default", "a", move)
    assert taken() == (True, False)
    await world.objects.delete(SERVICE, "default", "a")
    assert taken() == (False, False)


async def test_a_restart_knows_what_was_taken_and_services_never_share(world: World) -> None:
    first = Objects(world.log, world.cache, Admission(), lambda: world.now)
    held = [await first.create(service(f"a{number}")) for number in range(20)]
    second = Objects(world.log, world.cache, Admission(), lambda: world.now)
    held += [await second.create(service(f"b{number}")) for number in range(20)]
    assert len({one.spec.clusterIP for one in held}) == len({one.spec.ports[0].nodePort for one in held}) == 40

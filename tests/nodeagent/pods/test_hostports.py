"""Which ports of a node lead to which pod, over a pod's life."""

from __future__ import annotations

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.hostports import HostPorts
from nodeagent.proxy.services import Endpoint, HostPort
from tests.nodeagent.pods.world import World, make_pod


def test_a_port_leads_to_the_pod_from_its_address_on_until_it_has_none() -> None:
    pod = make_pod()
    pod.spec.containers[0].ports.add(containerPort=80, hostPort=8080)
    pod.spec.containers[0].ports.add(containerPort=53, hostPort=53, protocol="UDP", hostIP="192.0.2.1")
    pod.spec.containers[0].ports.add(containerPort=81)
    world, told = World(pod), []
    ports = HostPorts(lambda listed: told.append(sorted(listed)))
    world.post(did.PodAdmitted(world.now))
    ports.follow(world.state)
    assert told == []
    world.settle(unless=lambda effect: isinstance(effect, do.CreateSandbox))
    ports.follow(world.state)
    both = [
        HostPort("default/web", "tcp", "", 8080, Endpoint("10.1.0.2", 80, True)),
        HostPort("default/web", "udp", "192.0.2.1", 53, Endpoint("10.1.0.2", 53, True)),
    ]
    assert told == [both]
    world.settle()
    ports.follow(world.state)
    world.post(did.DeletionRequested(world.now, 0.0))
    ports.follow(world.state)
    assert told == [both]
    world.settle()
    ports.follow(world.state)
    assert told == [both, []]


def test_a_pod_with_the_nodes_network_needs_no_rule() -> None:
    pod = make_pod(hostNetwork=True)
    pod.spec.containers[0].ports.add(containerPort=80, hostPort=80)
    world, told = World(pod), []
    world.run()
    HostPorts(lambda listed: told.append(list(listed))).follow(world.state)
    assert told == []

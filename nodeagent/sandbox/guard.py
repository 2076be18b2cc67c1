"""The nftables rules that the pod network itself has, as text; they hold in every proxy mode. Pure.

    pod ─► its port ─► bridge prerouting   only IPv4 and ARP, only from the pod's own MAC and address
                   ─► ip input, forward    not to the metadata address, not to ports of agents
    other nodes    ─► ip input             nobody else sends into the tunnel
                   ─► ip postrouting       masquerade what leaves the cluster

A pod's port carries the pod's address as its interface group: one constant set of (group, MAC, address) then says who
may send as whom, and no rule changes when a pod comes or goes. Owns the tables `bridge podplane` and `ip podplane`.
Cannot fail.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from nodeagent.sandbox.ipam import hardware_address

TABLE = "podplane"
FAMILIES = ("bridge", "ip")
METADATA = IPv4Address("169.254.169.254")
"""Where clouds tell a machine who it is, credentials included."""
PORTS = "pp*"
"""The names of pods' links (sandbox/network.py, host_link)."""
_REFUSE_TCP, _REFUSE = "reject with tcp reset", "reject"


@dataclass(frozen=True, slots=True)
class Closed:
    """What pods may not reach. agent_ports: (address, TCP port) of this agent; None: every address of the node."""

    metadata: bool = True
    agent_ports: tuple[tuple[IPv4Address | None, int], ...] = ()


CLOSED = Closed()


def rules(
    pods: IPv4Network,
    cluster: IPv4Network,
    nodes: Collection[IPv4Address],
    closed: Closed,
    tunnel: tuple[int, int] | None = None,
) -> str:
    """Write what `nft -f` makes both tables of, in place of what stands, at once.

    pods: this node's range. nodes: the addresses of all nodes, whose agents are taken to have this one's ports.
    tunnel: UDP port and network number of the VXLAN, where there is one.
    """
    inlet = _inlet(nodes, *tunnel) if tunnel else ()
    return _bridge(pods) + _ip(pods, cluster, inlet, (*_metadata(closed), *_agents(nodes, closed)))


def removal() -> str:
    """Write what takes both tables away, whether they are there or not."""
    return "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in FAMILIES)


def _table(family: str, *chains: str) -> str:
    body = "\n".join(chains)
    return f"table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{body}\n}}\n"


def _chain(name: str, hook: str, *lines: str) -> str:
    head = [f"type {hook}; policy accept;"] if hook else []
    return "\n".join([f"chain {name} {{", *head, *lines, "}"])


def _bridge(pods: IPv4Network) -> str:
    # Not hosts(): a /31 has two of these, but no pod ever has the first two addresses or the last one.
    owners = [pods[index] for index in range(2, pods.num_addresses - 1)]
    known = ", ".join(f"{int(ip)} . {hardware_address(ip).hex(':')} . {ip}" for ip in owners)
    allowed = [
        f"meta protocol ip iifgroup . ether saddr . ip saddr {{ {known} }} accept",
        f"meta protocol arp iifgroup . ether saddr . arp saddr ip {{ {known} }} accept",
    ]
    ours = ["iifgroup 0 accept", f'iifname != "{PORTS}" accept']
    hook = "filter hook prerouting priority -300"
    return _table("bridge", _chain("prerouting", hook, *ours, *(allowed if owners else ()), "drop"))


def _ip(pods: IPv4Network, cluster: IPv4Network, inlet: Sequence[str], closed: Sequence[str]) -> str:
    return _table(
        "ip",
        _chain("closed", "", *closed),
        # The node itself may ask its own daemons under the bridge's address, which is one of the cluster's.
        _chain("input", "filter hook input priority -5", *inlet, f'iifname != "lo" ip saddr {cluster} jump closed'),
        _chain("forward", "filter hook forward priority -5", f"ip saddr {pods} jump closed"),
        _chain(
            "postrouting",
            "nat hook postrouting priority 100",
            f"ip saddr {pods} ip daddr != {cluster} masquerade fully-random",
        ),
    )


def _inlet(nodes: Collection[IPv4Address], port: int, number: int) -> Sequence[str]:
    """Only nodes send into the tunnel, which asks nobody who he is. Others' networks on the port are let alone."""
    # After UDP's 8 bytes: flags and 24 bits that are 0, then the network's number.
    return [f"udp dport {port} @th,96,24 {number} ip saddr != {_set(nodes)} drop"]


def _metadata(closed: Closed) -> Sequence[str]:
    return [f"ip daddr {METADATA} {_REFUSE}"] if closed.metadata else []


def _set(addresses: Collection[IPv4Address]) -> str:
    return "{ " + ", ".join(map(str, sorted(addresses))) + " }"


def _agents(nodes: Collection[IPv4Address], closed: Closed) -> Sequence[str]:
    lines = []
    for address, port in closed.agent_ports:
        # On this node whatever address it listens on; on the others what this agent's own configuration tells.
        target = f"ip daddr {address} " if address else "fib daddr type local "
        lines.append(f"{target}tcp dport {port} {_REFUSE_TCP}")
    ports = ", ".join(str(port) for port in sorted({port for _, port in closed.agent_ports}))
    if ports and nodes:
        lines.append(f"ip daddr {_set(nodes)} tcp dport {{ {ports} }} {_REFUSE_TCP}")
    return lines

"""Every rtnetlink message that the pod network sends, byte for byte, and the import of what encodes them."""

from __future__ import annotations

import struct
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from nodeagent.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request, Socket
from nodeagent.sandbox import links
from nodeagent.sandbox.rtnl import Template

MAC = b"\x0a\x58\x0a\x4d\x01\x02"
NAME = "pp0123456789a"
OWN, VIA = IPv4Interface("10.77.1.2/24"), IPv4Address("10.77.1.1")
NEW = NLM_F_CREATE | NLM_F_EXCL
PUT = NLM_F_CREATE | NLM_F_REPLACE


def tlv(kind: int, value: bytes | int | str) -> bytes:
    """One attribute: a number is a u32, text ends with a zero byte."""
    payload = struct.pack("=I", value) if isinstance(value, int) else value
    payload = payload.encode() + b"\0" if isinstance(payload, str) else payload
    return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def link(index: int = 0, up: bool = False) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, up, up)


def address(flags: int) -> bytes:
    ip = OWN.ip.packed
    return struct.pack("=BBBBI", 2, 24, 0, 0, 2) + tlv(2, ip) + tlv(1, ip) + tlv(8, flags)


def route(length: int, scope: int, *attributes: bytes, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", 2, length, 0, 0, 254, 112, scope, 1, flags) + b"".join(attributes)


PEER = link() + tlv(3, "eth0") + tlv(4, 1500) + tlv(1, MAC) + tlv(28, 9)
VETH = tlv(18, tlv(1, "veth") + tlv(2, tlv(1, PEER)))
TUNNEL = links.Tunnel(112, IPv4Address("198.18.0.1"), 8472, learning=False)
VXLAN = tlv(
    18, tlv(1, "vxlan") + tlv(2, tlv(1, 112) + tlv(4, bytes([198, 18, 0, 1])) + tlv(15, b"\x21\x18") + tlv(7, b"\0"))
)
HAIRPIN = tlv(18, tlv(4, b"bridge\0") + tlv(5, tlv(4, b"\1")))


@pytest.mark.parametrize(
    ("made", "kind", "flags", "body"),
    [
        (links.get_link("eth0"), 18, 0, link() + tlv(3, "eth0")),
        (links.list_links(), 18, 0, link() + tlv(29, 8)),
        (
            links.add_bridge("podplane0", MAC, 1500),
            16,
            NEW,
            link(up=True) + tlv(3, "podplane0") + tlv(1, MAC) + tlv(4, 1500) + tlv(18, tlv(1, "bridge")),
        ),
        (
            links.set_link("podplane0", MAC, 9000),
            16,
            0,
            link(up=True) + tlv(3, "podplane0") + tlv(1, MAC) + tlv(4, 9000),
        ),
        (
            links.add_veth(NAME, 7, 1500, "eth0", MAC, 9, 0x0A4D0102),
            16,
            NEW,
            link(up=True) + tlv(3, NAME) + tlv(4, 1500) + tlv(10, 7) + tlv(27, 0x0A4D0102) + VETH,
        ),
        (
            links.add_vxlan("podplane-vxlan", MAC, 1450, TUNNEL),
            16,
            NEW,
            link(up=True) + tlv(3, "podplane-vxlan") + tlv(1, MAC) + tlv(4, 1450) + VXLAN,
        ),
        (links.set_port(NAME, 7, 5), 16, 0, link(up=True) + tlv(3, NAME) + tlv(10, 7) + tlv(27, 5)),
        (links.hairpin(NAME), 16, 0, link() + tlv(3, NAME) + HAIRPIN),
        (links.set_up(2), 16, 0, link(2, up=True)),
        (links.delete_link(NAME), 17, 0, link() + tlv(3, NAME)),
        (links.put_address(2, OWN, prefix_route=False), 20, PUT, address(0x200)),
        (links.delete_address(2, OWN), 21, 0, address(0)),
        (links.list_addresses(), 22, 0, struct.pack("=BBBBI", 2, 0, 0, 0, 0)),
        (
            links.put_route(IPv4Network(VIA), None, 2),
            24,
            PUT,
            route(32, 253, tlv(1, VIA.packed), tlv(4, 2)),
        ),
        (links.put_route(IPv4Network("0.0.0.0/0"), VIA, 2), 24, PUT, route(0, 0, tlv(5, VIA.packed), tlv(4, 2))),
        (
            links.put_route(IPv4Network("10.77.2.0/24"), VIA, replace=False),
            24,
            NEW,
            route(24, 0, tlv(1, bytes([10, 77, 2, 0])), tlv(5, VIA.packed)),
        ),
        (
            links.put_route(IPv4Network("10.77.2.0/24"), VIA, 9, onlink=True),
            24,
            PUT,
            route(24, 0, tlv(1, bytes([10, 77, 2, 0])), tlv(5, VIA.packed), tlv(4, 9), flags=4),
        ),
        (
            links.delete_route(links.Route(IPv4Network("10.77.2.0/24"), VIA, 2, 112)),
            25,
            0,
            route(24, 0, tlv(1, bytes([10, 77, 2, 0])), tlv(5, VIA.packed)),
        ),
        (links.list_routes(), 26, 0, struct.pack("=12x").replace(b"\0", b"\2", 1)),
    ],
    ids=lambda value: value.asked if isinstance(value, Request) else "",
)
def test_each_message_says_what_is_asked(made: Request, kind: int, flags: int, body: bytes) -> None:
    assert (made.kind, made.flags) == (kind, flags)
    assert made.body == body


def test_patched_copies_do_not_change_one_another() -> None:
    first = links.add_veth(NAME, 7, 1500, "eth0", MAC, 9, 1).body
    second = links.add_veth("pp9876543210f", 7, 1500, "eth0", MAC[::-1], 10, 2).body
    assert links.add_veth(NAME, 7, 1500, "eth0", MAC, 9, 1).body == first
    assert (
        first.replace(NAME.encode(), b"pp9876543210f")
        .replace(MAC, MAC[::-1])
        .replace(tlv(28, 9), tlv(28, 10))
        .replace(tlv(27, 1), tlv(27, 2))
        == second
    )


def test_a_hole_takes_a_value_of_its_own_length_only() -> None:
    template = Template(b"..abc..abc", b"abc")
    assert template.fill(b"xyz") == b"..xyz..xyz"
    with pytest.raises(ValueError, match="2 bytes where 3 belong"):
        template.fill(b"xy")
    with pytest.raises(ValueError, match="mark"):
        Template(b"....", b"abc")


def test_the_kernels_answers_are_read() -> None:
    with Socket() as netlink:
        body = netlink.ask(links.get_link("lo"))
        lo = links.read_link(body)
        assert (lo.index, lo.name, lo.kind, lo.peer, lo.master) == (1, "lo", "", 0, 0)
        assert links.read_index(body) == 1
        assert lo in [links.read_link(found) for found in netlink.dump(links.list_links())]


def test_a_tunnel_is_read_as_it_was_asked_for() -> None:
    assert links.read_tunnel(links.add_vxlan("podplane-vxlan", MAC, 1450, TUNNEL).body) == TUNNEL


def test_what_encodes_is_imported_without_the_rest_of_its_package() -> None:
    program = (
        "import sys; import nodeagent.sandbox.links\n"
        "assert not [name for name in sys.modules if name.startswith('pyroute2')]\n"
        "assert 'asyncio' not in sys.modules\n"
        "import pyroute2.netlink\n"
        "assert pyroute2.netlink.nlmsg and pyroute2.IPRoute\n"
        "print('whole')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("whole\n", "")

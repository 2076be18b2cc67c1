"""IPVS' netlink messages: encoded once by pyroute2's classes, then patched, as sandbox/rtnl.py does and says why.

Owns what the messages say; never sends one. Forwarding is always NAT (0). Sources: linux/ip_vs.h; pyroute2's own
IPVSService and IPVSDest are not used: their defaults are direct routing, and their "update" deletes.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache

from nodeagent import netlink
from nodeagent.netlink import Request
from nodeagent.proxy.ipvs.plan import Front
from nodeagent.proxy.ipvs.servers import DeleteReal, DeleteServer, PutReal, PutServer, Step
from nodeagent.sandbox.rtnl import Template, bare_package

with bare_package():
    from pyroute2.netlink.generic.ipvs import GENL_NAME, GENL_VERSION, ipvsmsg

NETLINK_GENERIC = 16
FAMILY_NAME: str = GENL_NAME

_GENL_ID_CTRL, _CTRL_GETFAMILY, _CTRL_FAMILY_ID, _CTRL_FAMILY_NAME = 16, 3, 1, 2
_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE = 1, 2, 3
_NEW_DEST, _SET_DEST, _DEL_DEST = 5, 6, 7
_PERSISTENT, _FLAGS = 0x1, 0xFFFF
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_ONE_ADDRESS = "255.255.255.255"
# Marks of the templates: values that no other part of a message has.
_ADDRESS_MARK, _PORT_MARK = b"\xa1\xa2\xa3\xa4", b"\xb1\xb2"
_TARGET_MARK, _TARGET_PORT_MARK = b"\xc1\xc2\xc3\xc4", b"\xd1\xd2"
_U32, _PORT = struct.Struct("=I"), struct.Struct("!H")


def look_up_family() -> Request:
    """Ask for the number of the IPVS family; the kernel loads the module where it can."""
    body = struct.pack("=BBH", _CTRL_GETFAMILY, 1, 0)
    body += netlink.attribute(_CTRL_FAMILY_NAME, FAMILY_NAME.encode() + b"\0")
    return Request(_GENL_ID_CTRL, 0, body, "look up IPVS")


def read_family(body: bytes) -> int:
    return int.from_bytes(netlink.attributes(body, 4)[_CTRL_FAMILY_ID][:2], "little")


def request(family: int, step: Step) -> Request:
    """Encode a step."""
    front = step.front
    if isinstance(step, PutServer):
        command = _NEW_SERVICE if step.is_new else _SET_SERVICE
        body = _service(command, front.protocol, bool(front.mark), step.scheduler, step.affinity).fill(*_key(front))
        return Request(family, 0, body, f"virtual server {front}, scheduler {step.scheduler}")
    if isinstance(step, DeleteServer):
        body = _service(_DEL_SERVICE, front.protocol, bool(front.mark), "", 0).fill(*_key(front))
        return Request(family, 0, body, f"remove virtual server {front}")
    command, weight = _DEL_DEST, 0
    if isinstance(step, PutReal):
        command, weight = (_NEW_DEST if step.is_new else _SET_DEST), step.weight
    address, port = step.target
    values = (*_key(front), socket.inet_aton(address), _PORT.pack(port))
    body = _dest(command, front.protocol, bool(front.mark), weight).fill(*values)
    verb = "remove" if isinstance(step, DeleteReal) else f"weight {weight} for"
    return Request(family, 0, body, f"{verb} real server {address}:{port} of {front}")


def _key(front: Front) -> tuple[bytes, ...]:
    if front.mark:
        return (_U32.pack(front.mark),)
    return socket.inet_aton(front.address), _PORT.pack(front.port)


def _key_attributes(protocol: str, is_mark: bool) -> list[tuple[str, object]]:
    family: tuple[str, object] = ("IPVS_SVC_ATTR_AF", socket.AF_INET)
    if is_mark:
        return [family, ("IPVS_SVC_ATTR_FWMARK", *_U32.unpack(_ADDRESS_MARK))]
    return [
        family,
        ("IPVS_SVC_ATTR_PROTOCOL", _PROTOCOLS[protocol]),
        ("IPVS_SVC_ATTR_ADDR", socket.inet_ntoa(_ADDRESS_MARK)),
        ("IPVS_SVC_ATTR_PORT", *_PORT.unpack(_PORT_MARK)),
    ]


@lru_cache(maxsize=256)
def _service(command: int, protocol: str, is_mark: bool, scheduler: str, affinity: int) -> Template:
    attributes = _key_attributes(protocol, is_mark)
    if scheduler:
        attributes += [
            ("IPVS_SVC_ATTR_SCHED_NAME", scheduler),
            ("IPVS_SVC_ATTR_FLAGS", {"flags": _PERSISTENT if affinity else 0, "mask": _FLAGS}),
            ("IPVS_SVC_ATTR_TIMEOUT", affinity),
            ("IPVS_SVC_ATTR_NETMASK", _ONE_ADDRESS),
        ]
    return _template(command, is_mark, ("IPVS_CMD_ATTR_SERVICE", {"attrs": attributes}))


@lru_cache(maxsize=64)
def _dest(command: int, protocol: str, is_mark: bool, weight: int) -> Template:
    service = ("IPVS_CMD_ATTR_SERVICE", {"attrs": _key_attributes(protocol, is_mark)})
    attributes: list[tuple[str, object]] = [
        ("IPVS_DEST_ATTR_ADDR_FAMILY", socket.AF_INET),
        ("IPVS_DEST_ATTR_ADDR", socket.inet_ntoa(_TARGET_MARK)),
        ("IPVS_DEST_ATTR_PORT", *_PORT.unpack(_TARGET_PORT_MARK)),
        ("IPVS_DEST_ATTR_FWD_METHOD", 0),
        ("IPVS_DEST_ATTR_WEIGHT", weight),
        ("IPVS_DEST_ATTR_U_THRESH", 0),
        ("IPVS_DEST_ATTR_L_THRESH", 0),
    ]
    return _template(command, is_mark, service, ("IPVS_CMD_ATTR_DEST", {"attrs": attributes}), with_target=True)


def _template(command: int, is_mark: bool, *attributes: tuple[str, object], with_target: bool = False) -> Template:
    message = ipvsmsg()
    message["cmd"], message["version"] = command, GENL_VERSION
    message["attrs"] = list(attributes)
    message.encode()
    marks = [_ADDRESS_MARK] if is_mark else [_ADDRESS_MARK, _PORT_MARK]
    marks += [_TARGET_MARK, _TARGET_PORT_MARK] if with_target else []
    return Template(bytes(message.data[16:]), *marks)

"""The border to dnspython: questions out of messages, messages out of answers.

Imports its message module and the record types that it makes, nothing of its resolver: 29 ms and 0.9 MB. Never opens
a socket. A message that is none is a Malformed; what it was asked for is told by the header alone (`refusal`).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.SRV import SRV

from nodeagent.dns.zone import Answer, Labels, Record

TTL = 5
"""Seconds that an answer about the cluster may be kept, one that there is none included. CoreDNS's."""
PAYLOAD = 1232
"""Bytes of a datagram that pass any path whole (DNS flag day 2020): the most that is sent and asked for."""
SMALLEST = 512
"""Bytes that every client takes."""

_IN = dns.rdataclass.IN
_HEADER = struct.Struct("!HHHHHH")
_QR, _RD = 0x8000, 0x0100
_TYPES: Mapping[str, Any] = {made.__name__: made for made in (A, CNAME, NS, PTR, SOA, SRV, TXT)}
_LEAD_TO_NAMES = frozenset({"CNAME", "NS", "PTR", "SRV"})


@dataclass(frozen=True, slots=True)
class Found:
    """Another server's answer, and how old it is in seconds."""

    message: dns.message.Message
    age: int = 0


class Malformed(Exception):
    """The message cannot be taken apart."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question. name: as it was asked; labels: in lower case; payload: bytes that the client takes by UDP."""

    query: dns.message.Message
    name: dns.name.Name
    labels: Labels
    kind: str
    payload: int

    @property
    def dnssec(self) -> bool:
        """Whether signatures are asked for."""
        return bool(self.query.ednsflags & dns.flags.DO)

    @property
    def unchecked(self) -> bool:
        """Whether the client wants what cannot be validated, too."""
        return bool(self.query.flags & dns.flags.CD)


def read(wire: bytes) -> Question | int:
    """Take a query apart; the rcode where it cannot be answered. Raises Malformed for what is no query."""
    if len(wire) < _HEADER.size or _HEADER.unpack_from(wire)[1] & _QR:
        raise Malformed("no query")  # an answer that is answered would go to and fro
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        return int(dns.rcode.FORMERR)
    if query.opcode() != dns.opcode.QUERY:
        return int(dns.rcode.NOTIMP)
    if len(query.question) != 1:
        return int(dns.rcode.FORMERR)
    asked = query.question[0]
    if asked.rdclass != _IN or (dns.rdatatype.is_metatype(asked.rdtype) and asked.rdtype != dns.rdatatype.ANY):
        return int(dns.rcode.REFUSED)
    payload = max(SMALLEST, min(query.payload, PAYLOAD)) if query.edns >= 0 else SMALLEST
    return Question(query, asked.name, labels_of(asked.name), dns.rdatatype.to_text(asked.rdtype), payload)


def labels_of(name: dns.name.Name) -> Labels:
    """The labels in lower case, without the root's. Bytes that are not ASCII become what no name has."""
    return tuple(label.decode("ascii", "replace").lower() for label in name.labels if label)


def refusal(wire: bytes, rcode: int) -> bytes:
    """An answer that has nothing but the rcode, for a query that read() could not take apart."""
    number, flags, *_ = _HEADER.unpack_from(wire)
    return _HEADER.pack(number, _QR | (flags & (0x7800 | _RD)) | (rcode & 15), 0, 0, 0, 0)


def reply(question: Question, rcode: int = dns.rcode.NOERROR) -> dns.message.Message:
    """An answer without records, to be filled; with EDNS where the query had it."""
    made = dns.message.make_response(question.query, recursion_available=True, our_payload=PAYLOAD)
    made.set_rcode(dns.rcode.Rcode(rcode))
    return made


def local(question: Question, answer: Answer, domain: str, serial: int) -> dns.message.Message:
    """The message for an answer about the cluster."""
    made = reply(question)
    made.flags |= dns.flags.AA
    extend_local(made, answer, domain, serial, question.name)
    if question.kind == "SOA" and not answer.records and question.name == dns.name.from_text(domain):
        made.answer, made.authority = made.authority, []
    return made


def extend_local(
    made: dns.message.Message, answer: Answer, domain: str, serial: int, asked: dns.name.Name | None = None
) -> None:
    """Add an answer about the cluster; one without records says for how long there are none, by the zone's SOA.

    asked: how the client spells the name that it asked for.
    """
    made.answer.extend(_sets(answer.records, asked))
    made.additional.extend(_sets(answer.extra, None))
    if not answer.exists:
        made.set_rcode(dns.rcode.NXDOMAIN)
    if not answer.records:
        apex, host, mail = (dns.name.from_text(before + domain) for before in ("", "ns.dns.", "hostmaster."))
        soa = _TYPES["SOA"](_IN, dns.rdatatype.SOA, host, mail, serial, 7200, 1800, 86400, TTL)
        made.authority.append(dns.rrset.from_rdata(apex, TTL, soa))


def extend(made: dns.message.Message, found: Found) -> None:
    """Add another server's answer, which is some seconds old."""
    made.set_rcode(found.message.rcode())
    for to, records in ((made.answer, found.message.answer), (made.authority, found.message.authority)):
        for each in records:
            to.append(dns.rrset.from_rdata_list(each.name, max(0, each.ttl - found.age), list(each)))


def _sets(records: Iterable[Record], asked: dns.name.Name | None) -> list[dns.rrset.RRset]:
    """Sets of records, those of one set in random order. asked: how the client spells the first one's name."""
    found: dict[tuple[str, str], list[dns.rdata.Rdata]] = {}
    for record in records:
        found.setdefault((record.name, record.kind), []).append(_data(record))
    made = []
    for (name, _), data in found.items():
        random.shuffle(data)  # clients take the first
        owner = dns.name.from_text(name)
        made.append(dns.rrset.from_rdata_list(asked if owner == asked else owner, TTL, data))
    return made


def _data(record: Record) -> dns.rdata.Rdata:
    values: list[Any] = list(record.data)
    if record.kind in _LEAD_TO_NAMES:
        values[-1] = dns.name.from_text(str(values[-1]))
    made: dns.rdata.Rdata = _TYPES[record.kind](_IN, dns.rdatatype.from_text(record.kind), *values)
    return made


def encode(message: dns.message.Message, limit: int) -> bytes:
    """The message in at most so many bytes; what does not fit is left out and says so (TC): the client asks by TCP."""
    wire: bytes = message.to_wire(max_size=limit, prefer_truncation=True)
    return wire

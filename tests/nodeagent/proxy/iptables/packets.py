"""A working model of the rules that the builder uses: where does a packet go? For tests without a kernel.

Knows exactly the matches and targets that the builder writes and raises at any other, so that it cannot pass over
what it does not understand. Random choices are all followed: the answer is a set of ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from nodeagent.proxy.iptables.rules import JUMPS, Tables


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection."""

    source: str
    destination: str
    port: int
    protocol: str = "tcp"
    local: bool = False
    """Made by the node itself."""
    mark: int = 0
    translated: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """verdict: ACCEPT, DROP or REJECT; to: where it arrives; masqueraded: under the node's address."""

    verdict: str
    to: str
    masqueraded: bool = False


class Model:
    """A node with these rules and these addresses of its own."""

    def __init__(self, tables: Tables, node_addresses: set[str]) -> None:
        self._tables = tables
        self._local = {*node_addresses, "127.0.0.1"}

    def ends(self, packet: Packet) -> set[End]:
        """Every end that the packet may come to."""
        found = set()
        for _, after in self._base("nat", "OUTPUT" if packet.local else "PREROUTING", packet):
            arrives_here = after.destination in self._local
            hooks = ["OUTPUT"] if packet.local else []
            hooks += ["INPUT"] if arrives_here else [] if packet.local else ["FORWARD"]
            verdict = "ACCEPT"
            for hook in hooks:
                said, _ = next(self._base("filter", hook, after))  # no chance in filter: one way only
                verdict = said if verdict == "ACCEPT" else verdict
            masqueraded = not arrives_here and any(
                said == "MASQUERADE" for said, _ in self._base("nat", "POSTROUTING", after)
            )
            found.add(End(verdict, f"{after.destination}:{after.port}", masqueraded and verdict == "ACCEPT"))
        return found

    def _base(self, table: str, chain: str, packet: Packet) -> Iterator[tuple[str, Packet]]:
        """(verdict, packet) for each way through the jumps of a base chain, whose policy is ACCEPT."""
        rules = [jump.rule for jump in JUMPS if (jump.table, jump.chain) == (table, chain)]
        for verdict, after in self._walk(table, tuple(rules), packet):
            yield verdict or "ACCEPT", after

    def _walk(self, table: str, rules: tuple[str, ...], packet: Packet) -> Iterator[tuple[str | None, Packet]]:
        """Follow the rules; None: fell through or returned."""
        for index, rule in enumerate(rules):
            words = shlex.split(rule)
            target = words.index("-j")
            matched, by_chance = self._matches(words[:target], packet)
            if not matched:
                continue
            rest = rules[index + 1 :]
            if by_chance:
                yield from self._walk(table, rest, packet)
            yield from self._target(table, words[target + 1 :], packet, rest)
            return
        yield None, packet

    def _target(
        self, table: str, words: list[str], packet: Packet, rest: tuple[str, ...]
    ) -> Iterator[tuple[str | None, Packet]]:
        name = words[0]
        if name == "MARK":
            value, mask = (int(part, 16) for part in words[words.index("--set-xmark") + 1].split("/"))
            yield from self._walk(table, rest, replace(packet, mark=packet.mark & ~mask ^ value))
        elif name == "RETURN":
            yield None, packet
        elif name == "DNAT":
            address, port = words[words.index("--to-destination") + 1].split(":")
            yield "ACCEPT", replace(packet, destination=address, port=int(port), translated=True)
        elif name in ("ACCEPT", "DROP", "REJECT", "MASQUERADE"):
            yield name, packet
        else:
            for verdict, after in self._walk(table, self._tables[table][name], packet):
                if verdict is None:
                    yield from self._walk(table, rest, after)
                else:
                    yield verdict, after

    def _matches(self, words: list[str], packet: Packet) -> tuple[bool, bool]:
        """(whether the packet matches, whether chance decides)."""
        by_chance, negated, index = False, False, 0
        while index < len(words):
            word, value = words[index], words[index + 1]
            if word == "!":
                negated, index = True, index + 1
                continue
            if word == "--probability":
                by_chance = True
            elif word not in ("-m", "--comment", "--mode") and self._holds(word, value, packet) == negated:
                return False, False
            negated, index = False, index + 2
        return True, by_chance

    def _holds(self, option: str, value: str, packet: Packet) -> bool:
        if option in ("-s", "-d"):
            address = packet.source if option == "-s" else packet.destination
            return IPv4Address(address) in IPv4Network(value)
        if option == "--mark":
            wanted, mask = (int(part, 16) for part in value.split("/"))
            return packet.mark & mask == wanted
        if option == "--ctstate":
            return not {"NEW", *(["DNAT"] if packet.translated else [])}.isdisjoint(value.split(","))
        if option == "--dst-type":
            assert value == "LOCAL"
            return packet.destination in self._local
        if option in ("-p", "--dport"):
            return value == (packet.protocol if option == "-p" else str(packet.port))
        raise AssertionError(f"the model does not know {option} {value}")

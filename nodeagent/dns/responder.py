"""From a query to its answer: the cluster's names at once, others from the cache or after other servers were asked.

Owns nothing; decides who answers. A CNAME of ours (ExternalName) is followed to where it leads, in the cluster or out
of it. Never fails: what cannot be answered is SERVFAIL, or REFUSED where the node has no server to ask.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import dns.exception
import dns.message
import dns.name
import dns.rcode

from nodeagent.dns import wire
from nodeagent.dns.upstream import LARGEST, Key, NoAnswer, Upstream
from nodeagent.dns.wire import Found, Malformed, Question
from nodeagent.dns.zone import Answer, Labels, Zone

log = logging.getLogger(__name__)

_CHAIN = 8
"""CNAMEs that are followed."""

Count = Callable[[str, str], None]
"""(who answered: cluster, cache, upstream or nobody; the rcode)"""


class Responder:
    """Answers from one zone and one set of servers."""

    def __init__(self, zone: Zone, upstream: Upstream, count: Count) -> None:
        self._zone = zone
        self._upstream = upstream
        self._count = count

    def at_once(self, data: bytes, *, stream: bool) -> bytes | Question | None:
        """The answer that needs nobody else. A Question: for resolve(). None: there is nothing to say."""
        try:
            question = wire.read(data)
        except Malformed:
            return None
        if isinstance(question, int):
            self._count("nobody", dns.rcode.to_text(dns.rcode.Rcode(question)))
            return wire.refusal(data, question)
        if question.query.edns > 0:
            return self._say(question, wire.reply(question, dns.rcode.BADVERS), "nobody", stream)
        try:
            return self._known(question, stream)
        except dns.exception.DNSException as error:
            return self._failed(question, error, stream)

    def _known(self, question: Question, stream: bool) -> bytes | Question:
        answer = self._zone.answer(question.labels, question.kind)
        if answer is None:
            found = self._upstream.cached(_key(question, question.name))
            return question if found is None else self._foreign(question, found, "cache", stream)
        if _leads_on(answer, question.kind) is not None:
            return question
        return self._say(question, self._local(question, answer), "cluster", stream)

    async def resolve(self, question: Question, *, stream: bool) -> bytes:
        """The answer to what at_once() gave back."""
        answer = self._zone.answer(question.labels, question.kind)
        try:
            if answer is None:
                found = await self._ask(question, question.name)
                return self._foreign(question, found, "upstream", stream)
            made = self._local(question, answer)
            await self._follow(question, answer, made)
        except NoAnswer as error:
            rcode = dns.rcode.REFUSED if error.refused else dns.rcode.SERVFAIL
            return self._say(question, wire.reply(question, rcode), "nobody", stream)
        except dns.exception.DNSException as error:
            return self._failed(question, error, stream)
        return self._say(question, made, "cluster", stream)

    def failure(self, data: bytes) -> bytes:
        """What is said where there is no room for the question."""
        return wire.refusal(data, dns.rcode.SERVFAIL)

    def _failed(self, question: Question, error: dns.exception.DNSException, stream: bool) -> bytes:
        """No message can be made of what is known: a name in it is too long, say."""
        log.warning("cannot answer %s %s: %r", question.name, question.kind, error)
        return self._say(question, wire.reply(question, dns.rcode.SERVFAIL), "nobody", stream)

    async def _follow(self, question: Question, answer: Answer, made: dns.message.Message) -> None:
        """Add what is where a CNAME of ours leads. Raises NoAnswer."""
        for _ in range(_CHAIN):
            target = _leads_on(answer, question.kind)
            if target is None:
                return
            there = self._zone.answer(_labels(target), question.kind)
            name = dns.name.from_text(target)
            if there is None:
                wire.extend(made, await self._ask(question, name))
                return
            wire.extend_local(made, there, self._zone.domain, self._zone.serial)
            answer = there

    def _local(self, question: Question, answer: Answer) -> dns.message.Message:
        return wire.local(question, answer, self._zone.domain, self._zone.serial)

    async def _ask(self, question: Question, name: dns.name.Name) -> Found:
        key = _key(question, name)
        return self._upstream.cached(key) or await self._upstream.ask(key)

    def _foreign(self, question: Question, found: Found, source: str, stream: bool) -> bytes:
        made = wire.reply(question)
        wire.extend(made, found)
        return self._say(question, made, source, stream)

    def _say(self, question: Question, made: dns.message.Message, source: str, stream: bool) -> bytes:
        self._count(source, dns.rcode.to_text(made.rcode()))
        return wire.encode(made, LARGEST if stream else question.payload)


def _key(question: Question, name: dns.name.Name) -> Key:
    return name.canonicalize(), question.kind, question.dnssec, question.unchecked


def _labels(name: str) -> Labels:
    return tuple(name.lower().split("."))


def _leads_on(answer: Answer, kind: str) -> str | None:
    """Where a CNAME leads that is not itself what was asked for."""
    last = answer.records[-1] if answer.records else None
    return str(last.data[0]) if last is not None and last.kind == "CNAME" and kind not in ("CNAME", "ANY") else None

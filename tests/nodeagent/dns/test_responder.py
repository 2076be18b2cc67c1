"""Queries and answers as they are on the wire, and what is asked of other servers on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest

from nodeagent.dns import upstream as upstream_module
from nodeagent.dns.responder import Responder
from nodeagent.dns.upstream import Server, Upstream
from nodeagent.dns.wire import Question
from tests.nodeagent.dns.world import DOMAIN, Outside, Reply, says, slice_of, zone

SVC = f"default.svc.{DOMAIN}"
WWW = "www.example.com."


class Bench:
    """A responder, and the servers of the world that it asks."""

    def __init__(self) -> None:
        self.zone = zone()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.servers: list[Server] = []
        self.upstream = Upstream(lambda: self.servers, lambda seconds: None)
        self.responder = Responder(self.zone, self.upstream, self._count)
        self._outside: list[Outside] = []

    def _count(self, source: str, rcode: str) -> None:
        self.counts[source, rcode] += 1

    def outside(self, reply: Reply) -> Outside:
        made = Outside(reply)
        self._outside.append(made)
        self.servers.append(made.address)
        return made

    async def raw(self, data: bytes, stream: bool = False) -> bytes | None:
        said = self.responder.at_once(data, stream=stream)
        return await self.responder.resolve(said, stream=stream) if isinstance(said, Question) else said

    async def ask(self, name: str, kind: str = "A", *, stream: bool = False, **options: object) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]
        answer = await self.raw(query.to_wire(), stream)
        assert answer is not None
        made = dns.message.from_wire(answer)
        assert query.is_response(made)
        return made

    async def close(self) -> None:
        await self.upstream.close()
        for each in self._outside:
            each.close()


Run = Callable[[Callable[[Bench], Awaitable[None]]], None]


@pytest.fixture
def run() -> Run:
    def work(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            bench = Bench()
            try:
                await scenario(bench)
            finally:
                await bench.close()

        asyncio.run(whole())

    return work


def texts(message: dns.message.Message) -> set[str]:
    return {f"{each.name} {dns.rdatatype.to_text(each.rdtype)} {data}" for each in message.answer for data in each}


def test_the_cluster_is_answered_with_authority_for_five_seconds_and_in_the_clients_spelling(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        answer = await bench.ask(f"WeB.{SVC}.")
        assert texts(answer) == {f"WeB.{SVC}. A 10.96.0.10"}
        assert answer.flags & dns.flags.AA
        assert answer.flags & dns.flags.RA
        assert [each.ttl for each in answer.answer] == [5]
        srv = await bench.ask(f"_http._tcp.db.{SVC}.", "SRV")
        assert len(texts(srv)) == 2
        assert {str(each.name) for each in srv.additional} == {f"db-0.db.{SVC}.", f"10-77-2-3.db.{SVC}."}
        assert bench.counts == {("cluster", "NOERROR"): 2}

    run(scenario)


@pytest.mark.parametrize(("name", "rcode"), [(f"no.{SVC}.", dns.rcode.NXDOMAIN), (f"web.{SVC}.", dns.rcode.NOERROR)])
def test_that_there_is_nothing_comes_with_the_zones_soa(run: Run, name: str, rcode: int) -> None:
    async def scenario(bench: Bench) -> None:
        answer = await bench.ask(name, "AAAA")
        assert (answer.rcode(), answer.answer) == (rcode, [])
        (soa,) = answer.authority
        assert (str(soa.name), soa.rdtype, soa.ttl, soa[0].minimum) == (f"{DOMAIN}.", dns.rdatatype.SOA, 5, 5)

    run(scenario)


def test_the_zone_itself_has_soa_and_ns(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        soa = await bench.ask(f"{DOMAIN}.", "SOA")
        assert [each.rdtype for each in soa.answer] == [dns.rdatatype.SOA]
        assert soa.authority == []
        before = soa.answer[0][0].serial
        bench.zone.put_slice(slice_of("none", ("10.77.1.9", "", True)))
        assert (await bench.ask(f"{DOMAIN}.", "SOA")).answer[0][0].serial > before
        assert texts(await bench.ask(f"{DOMAIN}.", "NS")) == {f"{DOMAIN}. NS ns.dns.{DOMAIN}."}

    run(scenario)


def test_an_answer_that_is_too_long_says_so_and_comes_whole_by_tcp(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.zone.put_slice(slice_of("none", *((f"10.77.4.{number}", "", True) for number in range(1, 201))))
        for options, limit in (
            ({}, 512),
            ({"use_edns": 0, "payload": 900}, 900),
            ({"use_edns": 0, "payload": 9000}, 1232),
        ):
            query = dns.message.make_query(f"none.{SVC}.", "A", **options)  # type: ignore[arg-type]
            data = await bench.raw(query.to_wire())
            assert data is not None
            assert len(data) <= limit
            cut = dns.message.from_wire(data)
            assert cut.flags & dns.flags.TC
            assert cut.edns == query.edns
        whole = await bench.ask(f"none.{SVC}.", stream=True)
        assert len(texts(whole)) == 200
        assert not whole.flags & dns.flags.TC

    run(scenario)


def test_many_endpoints_come_in_changing_order(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.zone.put_slice(slice_of("none", *((f"10.77.4.{number}", "", True) for number in range(1, 9))))
        first = {str((await bench.ask(f"none.{SVC}.")).answer[0][0]) for _ in range(60)}
        assert len(first) > 1

    run(scenario)


def test_what_is_no_question_is_refused_by_its_rcode_or_not_at_all(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        query = dns.message.make_query(f"web.{SVC}.", "A", use_edns=0)
        wire = bytearray(query.to_wire())
        assert await bench.raw(b"") is await bench.raw(b"\0" * 11) is None
        answered = bytes(wire[:2]) + b"\x80" + bytes(wire[3:])
        assert await bench.raw(answered) is None  # or two servers would talk for ever
        for data, rcode in (
            (wire[:-3], dns.rcode.FORMERR),
            (wire[:12], dns.rcode.FORMERR),
            (bytes(wire[:2]) + b"\x11\0" + bytes(wire[4:]), dns.rcode.NOTIMP),
            (dns.message.make_query("version.bind.", "TXT", "CH").to_wire(), dns.rcode.REFUSED),
            (dns.message.make_query(f"{DOMAIN}.", "AXFR").to_wire(), dns.rcode.REFUSED),
        ):
            said = await bench.raw(bytes(data))
            assert said is not None
            assert said[:2] == bytes(data[:2])
            assert dns.message.from_wire(said, question_only=True).rcode() == rcode
        strange = await bench.ask(f"web.{SVC}.", use_edns=1)
        assert (strange.rcode(), strange.answer) == (dns.rcode.BADVERS, [])

    run(scenario)


def test_other_names_are_asked_of_the_nodes_servers_and_kept_for_their_ttl(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        server = bench.outside(says(f"{WWW} 300 IN A 192.0.2.80"))
        for name in (WWW, WWW.upper(), WWW):
            answer = await bench.ask(name)
            assert texts(answer) == {f"{name} A 192.0.2.80"}
            assert not answer.flags & dns.flags.AA
            assert 290 <= answer.answer[0].ttl <= 300
        assert server.asked == [f"{WWW} IN A"]
        assert bench.counts == {("upstream", "NOERROR"): 1, ("cache", "NOERROR"): 2}
        await bench.ask(WWW, use_edns=0, want_dnssec=True)
        assert len(server.asked) == 2

    run(scenario)


@pytest.mark.parametrize(("soa", "asked"), [("example.com. 30 IN SOA ns. mail. 1 2 3 4 20", 1), ("", 2)])
def test_that_there_is_no_such_name_is_kept_as_its_soa_allows(run: Run, soa: str, asked: int) -> None:
    async def scenario(bench: Bench) -> None:
        server = bench.outside(says(rcode=dns.rcode.NXDOMAIN, soa=soa))
        for _ in range(2):
            assert (await bench.ask(WWW)).rcode() == dns.rcode.NXDOMAIN
        assert len(server.asked) == asked

    run(scenario)


def test_an_answer_for_no_time_is_not_kept(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        server = bench.outside(says(f"{WWW} 0 IN A 192.0.2.80"))
        for _ in range(2):
            assert (await bench.ask(WWW)).answer[0].ttl == 0
        assert len(server.asked) == 2

    run(scenario)


def test_a_server_that_is_silent_or_cannot_is_passed_over_and_then_comes_last(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "PATIENCE", 1.0)

    async def scenario(bench: Bench) -> None:
        silent, broken = bench.outside(lambda query, stream: None), bench.outside(says(rcode=dns.rcode.SERVFAIL))
        good = bench.outside(says(f"{WWW} 300 IN A 192.0.2.80"))
        assert texts(await bench.ask(WWW)) == {f"{WWW} A 192.0.2.80"}
        assert (await bench.ask(WWW, "AAAA")).rcode() == dns.rcode.NOERROR
        assert (len(silent.asked), len(broken.asked), len(good.asked)) == (1, 2, 2)

    run(scenario)


def test_without_an_answer_it_is_a_failure_and_without_a_server_a_refusal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "DEADLINE", 0.3)

    async def scenario(bench: Bench) -> None:
        assert (await bench.ask(WWW)).rcode() == dns.rcode.REFUSED
        server = bench.outside(lambda query, stream: None)
        assert (await bench.ask(WWW)).rcode() == dns.rcode.SERVFAIL
        bench.servers[:] = [("127.0.0.1", 1)]  # nobody listens: refused at once
        assert (await bench.ask(WWW)).rcode() == dns.rcode.SERVFAIL
        assert len(server.asked) == 1
        assert bench.counts["nobody", "SERVFAIL"] == 2

    run(scenario)


def test_an_answer_that_was_cut_is_fetched_by_tcp_and_forged_ones_are_not_heard(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.outside(says(*(f"{WWW} 300 IN A 192.0.2.{number}" for number in range(1, 100)), cut=True))
        assert len(texts(await bench.ask(WWW, stream=True))) == 99

        def forged(query: dns.message.Message, stream: bool) -> bytes:
            other = dns.message.make_query("evil.example.", "A", id=query.id)
            return dns.message.make_response(other).to_wire()

        bench.servers.clear()
        bench.outside(forged)
        bench.outside(says("mail.example.com. 9 IN A 192.0.2.25"))
        assert texts(await bench.ask("mail.example.com.")) == {"mail.example.com. A 192.0.2.25"}

    run(scenario)


def test_equal_questions_in_flight_are_one_so_that_a_loop_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "DEADLINE", 1.0)
    monkeypatch.setattr(upstream_module, "PATIENCE", 0.9)

    async def scenario(bench: Bench) -> None:
        loop = asyncio.get_running_loop()

        def back(query: dns.message.Message, stream: bool) -> bytes | None:
            """A server that asks us for what we ask it for."""
            return asyncio.run_coroutine_threadsafe(bench.raw(query.to_wire()), loop).result(2)

        server = bench.outside(back)
        answers = await asyncio.gather(*(bench.ask(WWW) for _ in range(5)))
        assert {answer.rcode() for answer in answers} == {dns.rcode.SERVFAIL}
        assert len(server.asked) <= 2

    run(scenario)


def test_an_external_name_is_followed_in_the_cluster_and_out_of_it(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        server = bench.outside(says(f"{WWW} 300 IN A 192.0.2.80"))
        assert texts(await bench.ask(f"out.{SVC}.")) == {f"out.{SVC}. CNAME {WWW}", f"{WWW} A 192.0.2.80"}
        assert texts(await bench.ask(f"in.{SVC}.")) == {f"in.{SVC}. CNAME web.{SVC}.", f"web.{SVC}. A 10.96.0.10"}
        assert texts(await bench.ask(f"out.{SVC}.", "CNAME")) == {f"out.{SVC}. CNAME {WWW}"}
        assert texts(await bench.ask(f"round.{SVC}.")) == {f"round.{SVC}. CNAME round.{SVC}."}
        assert server.asked == [f"{WWW} IN A"]
        bench.servers.clear()
        assert texts(await bench.ask(f"out.{SVC}.")) == {f"out.{SVC}. CNAME {WWW}", f"{WWW} A 192.0.2.80"}
        assert (await bench.ask(f"out.{SVC}.", "AAAA")).rcode() == dns.rcode.REFUSED

    run(scenario)

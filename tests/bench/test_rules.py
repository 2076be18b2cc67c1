"""What the bench of service rules measures: services, changes, the peers' layout, and what it leaves out."""

from __future__ import annotations

import pytest

from bench import services
from bench.peers.kubeproxy import Replica, replicas
from bench.rules.race import LIMIT, Found, Outcome, left_out
from bench.rules.scale import Rollout, Size, build, parse, sample
from bench.rules.trial import Figures

SMALL = Size(5, 2)


def test_sizes_are_services_by_endpoints() -> None:
    assert services.sizes("1000x2 44125x1,10000") == [Size(1000, 2), Size(44125, 1), Size(10000, 2)]
    for wrong in ("x2", "0", "1000000x2", "many"):
        with pytest.raises(ValueError):
            parse(wrong)


def test_no_two_services_share_an_address() -> None:
    ports = [port for found in build(Size(300, 3)).values() for port in found]
    assert len({port.cluster_ip for port in ports}) == 300
    assert len({endpoint.address for port in ports for endpoint in port.endpoints}) == 900
    assert [port.service[-3:] for port in sample(build(SMALL), 3)] == ["000", "002", "004"]


def test_a_rollout_changes_what_it_says_and_nothing_else() -> None:
    before = build(SMALL)
    rollout = Rollout(before)
    [key] = rollout.step("more")
    assert len(rollout.services[key][0].endpoints) == 3
    assert rollout.step("less") == [key]
    assert len(rollout.services[key][0].endpoints) == 2
    assert len(rollout.step("other", 3)) == 3
    assert [name for name in before if rollout.services[name] is before[name]] == list(before)[3:]


async def test_a_replica_writes_what_has_changed_of_its_documented_chains() -> None:
    for candidate in replicas():
        subject = await candidate.open()
        assert isinstance(subject, Replica)
        rollout = Rollout(build(SMALL))
        await subject.prepare(rollout.services)
        whole = subject.text.decode()
        assert whole.count("dnat to" if "nftables" in candidate.name else "--to-destination") == 10
        rollout.step("more")
        await subject.prepare(rollout.services)
        change = subject.text.decode()
        assert change.count("dnat to" if "nftables" in candidate.name else "--to-destination") == 1


def test_a_size_that_would_take_too_long_is_left_out() -> None:
    def took(seconds: float) -> Outcome:
        return Figures(seconds, seconds, None, None)

    one, five, ten = Size(1000, 2), Size(5000, 2), Size(10000, 2)
    assert left_out({}, ten) == ""
    assert left_out({one: took(0.1)}, ten) == ""
    assert left_out({one: took(1.1)}, ten).startswith("CAPPED: it would take about 110 s")
    assert left_out({one: took(1.0), five: took(5.0)}, ten) == ""
    assert left_out({one: took(1.0), five: took(LIMIT - 1)}, ten).startswith("CAPPED")


def test_what_has_no_figure_has_its_reason() -> None:
    one = Size(1000, 2)
    skipped = "SKIPPED: no such module"
    found: Found = {"nftables": {one: Figures(0.1, 0.1, 0.4, 4.0, one=0.02)}, "ipvs": {one: skipped}}
    [row] = services.rows(found)
    assert (row.ours, row.goal, row.met) == (20.0, 10.0, False)
    assert "1,000 x 2: ipvs: SKIPPED: no such module" in services.tables(found)
    assert "Missed: nftables, 1,000 x 2: one change, p50" in services.blame([row])

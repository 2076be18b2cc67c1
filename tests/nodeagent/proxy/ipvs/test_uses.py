"""How many parts have an address: as if all of them were counted anew after each exchange."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.proxy.ipvs.node import Uses
from nodeagent.proxy.ipvs.plan import Part

PARTS = st.builds(
    Part,
    addresses=st.frozensets(st.sampled_from(["10.96.0.1", "10.96.0.2", "192.0.2.7"])),
    digest=st.integers(0, 9),
)


def counted(parts: list[Part]) -> Uses:
    uses = Uses()
    uses.exchange((), parts)
    return uses


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | PARTS)))
def test_exchanges_one_by_one_count_as_all_at_once(steps: list[tuple[int, Part | None]]) -> None:
    uses, parts = Uses(), dict[int, Part]()
    for service, part in steps:
        old = [parts.pop(service)] if service in parts else []
        new = [part] if part is not None else []
        parts |= dict.fromkeys([service], part) if part is not None else {}
        uses.exchange(old, new)
        assert uses == counted(list(parts.values()))


def test_what_the_last_part_gives_up_is_not_there_any_more() -> None:
    shared = Part(addresses=frozenset({"192.0.2.7"}))
    uses = counted([shared, shared])
    uses.exchange([shared], [])
    assert uses.addresses == {"192.0.2.7": 1}
    uses.exchange([shared], [])
    assert "192.0.2.7" not in uses.addresses

"""The ring and the encodings, against plain models."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store.ring import Ring
from controlplane.store.stored import Event, Stored
from podplane.errors import Expired
from podplane.kinds import CONFIG_MAP
from podplane.v1 import config_pb2


def event(revision: int) -> Event:
    return Event("ADDED", Stored(CONFIG_MAP, f"configmaps/a/{revision}", revision, revision, b""))


@settings(deadline=None)
@given(
    size=st.integers(1, 8),
    base=st.integers(0, 3),
    steps=st.lists(st.integers(1, 3), max_size=20),
    after=st.integers(0, 70),
)
def test_a_ring_gives_everything_after_a_revision_or_says_that_it_cannot(
    size: int, base: int, steps: list[int], after: int
) -> None:
    ring, revisions, newest = Ring(size, base), [base], base
    for step in steps:  # other kinds take revisions in between
        newest += step
        revisions.append(newest)
        ring.append(event(newest))
    floor = revisions[max(0, len(steps) - size)]
    assert ring.oldest == floor
    if after < floor:
        with pytest.raises(Expired) as expired:
            ring.cursor_after(after)
        assert expired.value.oldest == floor
    else:
        found = ring.read(ring.cursor_after(after), limit=100)
        assert [one.revision for one in found] == [revision for revision in revisions[1:] if revision > after]


@pytest.mark.parametrize("size", [0, 1, 90, 127, 128, 129, 16_383, 16_384, 1_500_000])
def test_lengths_of_any_size_are_encoded_as_protobuf_does(size: int) -> None:
    body = config_pb2.ConfigMap(data={"k": "x" * size})
    read = config_pb2.ConfigMapWatchEvent.FromString(
        Event("DELETED", Stored(CONFIG_MAP, "configmaps/a/k", 2**40, 1, body.SerializeToString())).wire()
    )
    assert (read.type, read.object.data["k"]) == ("DELETED", "x" * size)
    assert read.object.metadata.resourceVersion == str(2**40)

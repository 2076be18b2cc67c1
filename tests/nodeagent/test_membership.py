"""When a snapshot may remove pods by not naming them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.membership import Membership, load, save
from podplane.v1.session_pb2 import Welcome

WELCOME = Welcome(
    clusterID="c1", epoch="e1", podCIDR="10.1.0.0/24", serviceCIDR="10.2.0.0/16", clusterCIDR="10.1.0.0/16"
)


@pytest.mark.parametrize(
    ("known", "revision", "rules"),
    [
        (Membership("c1", "e1", 7), 7, True),
        (Membership("c1", "e1", 7), 8, True),
        (Membership("c1", "e1", 7), 6, False),
        (Membership("c1", "e0", 7), 9, False),
        (Membership("c0", "e1", 7), 9, False),
        (Membership(), 9, False),
    ],
)
def test_only_a_snapshot_of_the_same_and_not_older_state_rules(known: Membership, revision: int, rules: bool) -> None:
    assert known.rules_over(WELCOME, revision) == rules


def test_a_welcome_alone_does_not_make_the_node_trust_the_next_snapshot() -> None:
    assert not Membership().given(WELCOME).rules_over(WELCOME, 9)
    assert Membership().seen(WELCOME, 5).rules_over(WELCOME, 9)


def test_it_is_kept_and_a_torn_file_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    known = Membership().seen(WELCOME, 5)
    save(path, known)
    assert load(path) == known
    path.write_bytes(path.read_bytes()[:20])
    assert load(path) == Membership()

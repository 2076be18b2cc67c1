"""The table against a model: any transactions, compactions and restarts, in any order."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store.log import Change, Record, Write
from controlplane.store.table import LogTable
from podplane.errors import Conflict

KEYS = ("a", "b", "c")


@dataclass
class Model:
    """The contract, in the plainest words."""

    live: dict[str, Record] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    revision: int = 0

    def commit(self, transaction: list[Write]) -> list[Change] | None:
        live, revision, changes = dict(self.live), self.revision, []
        for write in transaction:
            old = live.get(write.key)
            if write.expected not in (None, old.revision if old else 0) or (write.value is None and old is None):
                return None
            revision += 1
            created = old.created if old else revision
            if write.value is None:
                del live[write.key]
            else:
                live[write.key] = Record(write.key, write.value, revision, created)
            changes.append(Change(write.key, revision, created, write.value, old.value if old else None))
        self.live, self.revision = live, revision
        self.history.extend(changes)
        return changes


writes = st.builds(
    Write,
    key=st.sampled_from(KEYS),
    value=st.none() | st.binary(min_size=1, max_size=3),
    expected=st.none() | st.integers(0, 6),
)
groups = st.lists(st.lists(writes, min_size=1, max_size=4), min_size=1, max_size=4)
steps = st.lists(groups | st.sampled_from(["compact", "reopen"]), max_size=12)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_the_table_agrees_with_the_model(steps: list[list[list[Write]] | str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.sqlite"
        table, model = LogTable(path), Model()
        try:
            for step in steps:
                if step == "compact":
                    compact(table)
                elif step == "reopen":
                    table.close()
                    table = LogTable(path)
                else:
                    assert not isinstance(step, str)
                    check_group(table, model, step)
                check_state(table, model)
        finally:
            table.close()


def check_group(table: LogTable, model: Model, group: list[list[Write]]) -> None:
    for outcome, transaction in zip(table.commit(group), group, strict=True):
        expected = model.commit(transaction)
        if expected is None:
            assert isinstance(outcome, Conflict)
        else:
            assert outcome == expected


def compact(table: LogTable) -> None:
    table.mark_compacted(max(table.compacted, table.revision - 2))
    low: int | None = 0
    while low is not None:
        low = table.sweep(low, 2)


def check_state(table: LogTable, model: Model) -> None:
    assert table.revision == model.revision
    assert table.load("") == ([model.live[key] for key in sorted(model.live)], model.revision)
    assert table.changes(table.compacted, 1000) == [
        change for change in model.history if change.revision > table.compacted
    ]

"""Lines of `podctl describe`: indented, tab-separated, aligned at the end as kubectl aligns them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podctl.durations import rfc1123
from podctl.tabwriter import align

NONE = "<none>"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_LONG = 140


class Writer:
    """Collects lines; a cell ends with a tab."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def line(self, level: int, text: str) -> None:
        """Any text at an indentation of two spaces a level."""
        self._lines.append("  " * level + text)

    def field(self, level: int, name: str, value: object) -> None:
        """`Name:  value`."""
        self.line(level, f"{name}:\t{value}")

    def block(self, level: int, name: str, values: Iterable[str]) -> None:
        """A heading and a line for each value."""
        self.line(level, f"{name}:")
        for value in values:
            self.line(level + 1, value)

    def pairs(self, level: int, name: str, found: Mapping[str, str], separator: str = "=") -> None:
        """A map, one pair a line beside its name."""
        pairs = [f"{key}{separator}{value}" for key, value in sorted(found.items())]
        self.field(level, name, pairs[0] if pairs else NONE)
        for pair in pairs[1:]:
            self.line(level, f"\t{pair}")

    def annotations(self, level: int, found: Mapping[str, str]) -> None:
        """Annotations; the last applied manifest is left out, long values stand below their key."""
        shown = {key: value for key, value in sorted(found.items()) if key != _LAST_APPLIED}
        lines: list[str] = []
        for key, value in shown.items():
            if "\n" in value or len(value) > _LONG:
                lines += [f"{key}:", *(f"  {part[:_LONG]}" for part in value.splitlines())]
            else:
                lines.append(f"{key}: {value}")
        self.field(level, "Annotations", lines[0] if lines else NONE)
        for one in lines[1:]:
            self.line(level, f"\t{one}")

    def table(self, level: int, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table with underlined titles."""
        self.line(level, "\t".join(titles))
        self.line(level, "\t".join("-" * len(title) for title in titles))
        for row in rows:
            self.line(level, "\t".join(row))

    def conditions(self, conditions: Iterable[Any]) -> None:
        """Types, statuses and reasons of a workload's conditions."""
        rows = [[one.type, one.status, one.reason] for one in conditions]
        if rows:
            self.line(0, "Conditions:")
            self.table(1, ("Type", "Status", "Reason"), rows)

    def heading(self, obj: Any, *, created: bool = False) -> None:
        """Name, namespace, creation, labels and annotations."""
        metadata = obj.metadata
        self.field(0, "Name", metadata.name)
        if metadata.namespace:
            self.field(0, "Namespace", metadata.namespace)
        if created:
            self.field(0, "CreationTimestamp", rfc1123(metadata.creationTimestamp))
        self.pairs(0, "Labels", metadata.labels)
        self.annotations(0, metadata.annotations)

    def text(self) -> str:
        """Everything, aligned; a field without a value keeps its place in the column, without trailing blanks."""
        aligned = align("\n".join(self._lines), padding=2).split("\n")
        pairs = zip(self._lines, aligned, strict=True)
        return "\n".join(shown.rstrip() if line.endswith("\t") else shown for line, shown in pairs)


def controller(obj: Any) -> str:
    """`ReplicaSet/web-abc`: the owner that manages the object, empty where there is none."""
    owner = next((one for one in obj.metadata.ownerReferences if one.controller), None)
    return f"{owner.kind}/{owner.name}" if owner else ""

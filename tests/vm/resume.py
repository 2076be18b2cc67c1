"""What has passed of this very checkout, so that a run that was cut can go on: make test-vm RESUME=1.

Owns one file for each state of the checkout, in .cache/vm/passed; a change of any file begins a new one. Where git is
not to be had, nothing is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from pathlib import Path

_STATES = 5
"""That are remembered."""


class Passed:
    """Of a checkout as it is now."""

    def __init__(self, checkout: Path) -> None:
        self._file = _file(checkout)

    def tests(self) -> frozenset[str]:
        """Those that have passed, as pytest names them."""
        there = self._file is not None and self._file.exists()
        return frozenset(self._file.read_text().splitlines() if self._file and there else ())

    def note(self, test: str) -> None:
        """It has passed: written down at once, since a run may be cut at any time."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as lines:
            lines.write(f"{test}\n")
        with contextlib.suppress(FileNotFoundError):  # another process of the run is at the same
            for old in sorted(self._file.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-_STATES]:
                old.unlink(missing_ok=True)


def _file(checkout: Path) -> Path | None:
    digest = hashlib.sha256()
    try:
        digest.update(_git(checkout, "rev-parse", "HEAD") + _git(checkout, "diff", "HEAD"))
        for name in _git(checkout, "ls-files", "-z", "--others", "--exclude-standard").decode().split("\0")[:-1]:
            digest.update(name.encode() + (checkout / name).read_bytes())
    except (OSError, subprocess.SubprocessError):
        return None
    return checkout / ".cache/vm/passed" / digest.hexdigest()[:16]


def _git(checkout: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", checkout, *words], capture_output=True, timeout=30, check=True).stdout

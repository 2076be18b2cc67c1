"""Whether the state directory takes writes, as those who write to it say: a full disk holds new work, and ends nothing.

Who cannot keep what it must keep before it acts waits, and tries again every RETRY seconds; pods run on. The node then
shows DiskPressure, also where the filesystem's numbers do not (a quota).
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

RETRY = 1.0


class Disk:
    """One for the whole agent. `problem`: the newest failure; empty while writes succeed."""

    def __init__(self) -> None:
        self.problem = ""

    def failed(self, what: str, error: OSError) -> None:
        """Something could not be kept. Told once, until a write succeeds."""
        if not self.problem:
            log.error("cannot keep %s: %s: new work waits until the disk takes it", what, error)
        self.problem = str(error)

    def worked(self) -> None:
        """A write succeeded."""
        if self.problem:
            log.info("the state directory takes writes again")
            self.problem = ""

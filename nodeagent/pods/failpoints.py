"""Named points of pod start and stop at which a test ends the agent as SIGKILL would. Inert otherwise.

PODPLANE_FAILPOINT=create-container:before kills this process right before that effect is done, `:after` right after
it is done and before anybody learns of it. `name@2:before` waits for the second time. `python -m
nodeagent.pods.failpoints` lists the names.
"""

from __future__ import annotations

import os
import re
import signal

VARIABLE = "PODPLANE_FAILPOINT"

EFFECTS = (
    "take-address",
    "create-sandbox",
    "remove-sandbox",
    "release-address",
    "prepare-volumes",
    "remove-volumes",
    "pull-image",
    "create-container",
    "start-container",
    "run-hook",
    "signal-container",
    "kill-container",
    "remove-container",
)
OTHERS = ("keep-spec", "journal", "report-status", "report-gone", "forget")
NAMES = tuple(f"{name}:{side}" for name in (*EFFECTS, *OTHERS) for side in ("before", "after"))


def _armed() -> tuple[str, int]:
    match = re.fullmatch(r"([a-z-]+)(?:@(\d+))?(?::(before|after))?", os.environ.get(VARIABLE, ""))
    if match is None:
        return "", 0
    return f"{match[1]}:{match[3] or 'before'}", int(match[2] or 1)


_name, _left = _armed()
if os.environ.get(VARIABLE) and _name not in NAMES:
    raise SystemExit(f"cannot use {VARIABLE}={os.environ[VARIABLE]}: no such point; there are: {' '.join(NAMES)}")


def hit(name: str) -> None:
    """Pass the point `name` (one of NAMES): nothing happens unless the environment armed it."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    print("\n".join(NAMES))

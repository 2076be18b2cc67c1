"""Back-off arithmetic. Pure: seconds in, seconds out.

Kubernetes: 10 s doubling to 300 s for restarts and pulls, forgotten after ten healthy minutes. The first restart
is immediate, as the kubelet's is: the back-off counts from the second exit within the window.
"""

from __future__ import annotations

FIRST = 10.0
CAP = 300.0
HEALTHY = 600.0
"""A container that ran this long starts with a clean record."""

MOUNT_CAP = 122.0
SANDBOX_CAP = 60.0
RETRY_CREATE = 10.0
"""Between tries where nothing that the agent sees can tell that it will work now."""

SHOW = 1.0
"""How long the failure itself (Error, ErrImagePull) is shown before the back-off that follows it."""


def doubling(failures: int, first: float = FIRST, cap: float = CAP) -> float:
    """The wait after failure number `failures` (1, 2, ...)."""
    return min(first * 2.0 ** min(max(failures, 1) - 1, 20), cap)


def restart_delay(crashes: int) -> float:
    """The wait before a restart when `crashes` restarts came before it within the window."""
    return doubling(crashes) if crashes > 0 else 0.0


KILL_AGAIN = 5.0
"""Between SIGKILLs to something that has not ended."""

KEPT = 10.0
"""For how long an init container that is done leaves its remains: their removal would compete with the starts of other
containers, of this pod and of others. The kubelet collects dead containers once a minute."""

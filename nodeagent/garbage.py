"""Python's search for garbage, where it would look through much and find nothing.

Owns nothing but the switch, which is the whole process's: of two who use it at once the one that began first puts it
back. Cannot fail.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Many values are made and none is garbage: to look for it among them would take a quarter of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

"""Moments in objects: microseconds are kept, so that a timeline can show where a start of 60 ms went; people are shown
whole seconds, as Kubernetes writes them. Pure.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def stamp(at: float) -> Timestamp:
    """The moment `at`, seconds since the epoch."""
    made = Timestamp()
    made.FromMicroseconds(round(at * 1_000_000))
    return made

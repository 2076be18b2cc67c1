"""Times as kubectl prints and takes them, over protobuf's timestamps. Pure; spans are podplane.duration's."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from podctl.failure import Failure
from podplane import duration
from podplane.duration import human


def seconds_flag(flag: str, text: str) -> float:
    """Seconds of a flag's value: a duration, or a plain number of seconds. Failure names the flag."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return duration.parse(text)
    except ValueError as error:
        raise Failure(f"error: invalid argument for {flag}: {error}") from None


def seconds_of(stamp: Timestamp) -> float:
    """Unix seconds of a protobuf time; 0 where it is not set."""
    return stamp.seconds + stamp.nanos / 1e9


def age(stamp: Timestamp, now: float) -> str:
    """How long ago that was, `<unknown>` where it is not set."""
    return human(now - seconds_of(stamp)) if stamp.seconds else "<unknown>"


def rfc1123(stamp: Timestamp) -> str:
    """`Mon, 02 Jan 2006 15:04:05 +0000`, as kubectl describe prints times; empty where it is not set."""
    if not stamp.seconds:
        return ""
    return datetime.fromtimestamp(stamp.seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")

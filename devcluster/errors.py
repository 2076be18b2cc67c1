"""The one error of this package: what could not be done, and why."""

from __future__ import annotations


class DevClusterError(Exception):
    """Told to the person in one line; exit status 1."""

"""The version that programs tell is the package's."""

from __future__ import annotations

from importlib import metadata

from podplane import __version__


def test_the_version_is_the_packages() -> None:
    assert __version__ == metadata.version("podplane")

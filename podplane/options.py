"""Flags of the daemons: the command line wins over PODPLANE_<NAME> in the environment, that over the file of
`--config`, that over the default.

The file is TOML; its keys are the flags' names (`state-dir` or `state_dir`), of any command of the program. `--config`
itself has no variable: PODPLANE_CONFIG is podctl's file. Owns where values come from, never what they mean. Fails as
argparse does: what is wrong and where it stands on stderr, exit status 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FLAGS = "_flags"  # where a command's parser leaves its Flags in the namespace


@dataclass(frozen=True, slots=True)
class _Flag:
    """One flag. A text of several values has them separated by commas where `many`."""

    name: str
    default: Any
    read: Callable[[str], Any]
    choices: Sequence[str] | None
    many: bool

    @property
    def destination(self) -> str:
        return self.name.lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return "PODPLANE_" + self.destination.upper()

    def value_of(self, text: str, where: str) -> Any:
        """The value that `text`, found at `where`, means; ValueError."""
        if self.many:
            return [self._one(part, where) for part in text.split(",") if part]
        return self._one(text, where)

    def _one(self, text: str, where: str) -> Any:
        try:
            value = self.read(text)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
        if self.choices is not None and value not in self.choices:
            raise ValueError(f"{where}: {text!r} is not one of {', '.join(self.choices)}")
        return value


class Flags:
    """The flags of one command."""

    def __init__(self, parser: argparse.ArgumentParser, program: dict[str, _Flag]) -> None:
        self._parser = parser
        self._program = program
        self.added: list[_Flag] = []
        parser.set_defaults(**{_FLAGS: self})
        words = "TOML file with values of flags; the environment and the command line win over it"
        parser.add_argument("--config", type=Path, metavar="FILE", help=words)

    def add(
        self,
        name: str,
        default: Any,
        help: str,
        *,
        type: Callable[[str], Any] = str,
        choices: Sequence[str] | None = None,
        many: bool = False,
        metavar: str | None = None,
    ) -> None:
        """Add `--name`. A default that is a text is read like any other; `many` lets the flag be repeated."""
        flag = _Flag(name, default, type, choices, many)
        self.added.append(flag)
        self._program[flag.destination] = flag
        shown = "" if default is None or default in ("", [], ()) else f" (default {default})"
        self._parser.add_argument(
            name,
            # Left out where it is not given: then the other places are looked at.
            default=argparse.SUPPRESS,
            action="append" if many else "store",
            type=type,
            choices=choices,
            metavar=metavar,
            help=f"{help}{shown} [{flag.variable}]".replace("%", "%%"),
        )


class Options:
    """The flags of a program. Use `flags` for each command's parser, then `parse`."""

    def __init__(self, parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        self._parser = parser
        self._environment = environment
        self._known: dict[str, _Flag] = {}

    def flags(self, parser: argparse.ArgumentParser) -> Flags:
        """To add a command's flags by; `--config` is there already."""
        return Flags(parser, self._known)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Every flag of the command that `argv` names, from where it is set."""
        given = self._parser.parse_args(argv)
        flags: Flags = given.__dict__.pop(_FLAGS)
        try:
            settings = self._settings(given.config)
            for flag in flags.added:
                if not hasattr(given, flag.destination):
                    setattr(given, flag.destination, self._elsewhere(flag, settings))
        except (ValueError, OSError) as error:
            self._parser.error(str(error))
        return given

    def _elsewhere(self, flag: _Flag, settings: Mapping[str, tuple[str, str]]) -> Any:
        if flag.variable in self._environment:
            return flag.value_of(self._environment[flag.variable], flag.variable)
        if flag.destination in settings:
            return flag.value_of(*settings[flag.destination])
        return flag.value_of(flag.default, flag.name) if isinstance(flag.default, str) else flag.default

    def _settings(self, file: Path | None) -> dict[str, tuple[str, str]]:
        """Text and place of each key of the file. Keys of the program's other commands are right and not used."""
        found: dict[str, tuple[str, str]] = {}
        for key, value in _read(file).items() if file is not None else ():
            where, name = f"{file}: {key}", key.replace("-", "_")
            if name not in self._known:
                known = ", ".join(sorted(known.replace("_", "-") for known in self._known))
                raise ValueError(f"{where}: unknown key; there are {known}")
            if name in found:
                raise ValueError(f"{where}: is there twice, with - and with _")
            found[name] = _text(value, where), where
        return found


def _read(file: Path) -> dict[str, Any]:
    import tomllib  # only where there is a file: it takes longer than all the rest

    try:
        return tomllib.loads(file.read_text())
    except ValueError as error:  # not TOML, or not UTF-8
        raise ValueError(f"cannot read {file}: {error}") from None


def _text(value: Any, where: str) -> str:
    """A TOML value as it would stand on the command line."""
    if isinstance(value, list):
        return ",".join(_text(one, where) for one in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: {value!r} must be a string, a number or a list of them")
    return str(value)

"""The parser that every verb gets: kubectl's global flags, switches that take `=false`, errors in kubectl's words.

Flags and arguments may be mixed in any order. There are no abbreviations: a script that relies on one breaks with
the next flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import NoReturn

from podctl.failure import Failure, UsageFailure

VALUE_FLAGS = (
    "--context",
    "--namespace",
    "-n",
    "--token-file",
    "--server",
    "-s",
    "--certificate-authority",
    "--request-timeout",
)
"""Global flags that are followed by a value: they may also stand before the verb."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser of one verb, named by `verb` in its errors."""

    def __init__(self, verb: str, usage: str, summary: str, examples: str) -> None:
        super().__init__(
            prog=f"podctl {verb}",
            usage=f"podctl {verb} {usage}".rstrip(),
            description=summary,
            epilog=f"examples:\n{examples.strip(chr(10))}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        raise UsageFailure(message.replace("unrecognized arguments", "unknown flag or argument"), self.verb)

    def switch(self, *names: str, default: bool = False, help: str) -> None:
        """A flag without a value, or with `=true` or `=false`, as kubectl's are."""
        long = next(name for name in names if name.startswith("--"))
        dest = long[2:].replace("-", "_")
        self.add_argument(*names, dest=dest, action="store_true", default=default, help=help)
        self.add_argument(f"--no-{long[2:]}", dest=dest, action="store_false", help=argparse.SUPPRESS)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; raise UsageFailure where the line is wrong."""
        end = argv.index("--") if "--" in argv else len(argv)
        words = [self._switch_value(word) for word in argv[:end]] + list(argv[end:])
        return self.parse_intermixed_args(words)

    def long_flags(self) -> list[str]:
        """Every flag that --help shows, in its long form."""
        shown = (one for one in self._actions if one.help != argparse.SUPPRESS)
        return sorted(name for one in shown for name in one.option_strings if name.startswith("--"))

    def _switch_value(self, word: str) -> str:
        name, separator, value = word.partition("=")
        negated = f"--no-{name[2:]}"
        if not separator or not name.startswith("--") or negated not in self._option_string_actions:
            return word
        if value.lower() in ("true", "t", "1"):
            return name
        if value.lower() in ("false", "f", "0"):
            return negated
        raise UsageFailure(f'invalid argument "{value}" for "{name}" flag: it is true or false', self.verb)


def add_global_flags(parser: Parser) -> None:
    """The flags that say whom to talk to: the same for every verb that talks to a control plane."""
    group = parser.add_argument_group("global flags")
    group.add_argument("--context", metavar="NAME", help="the context of the config file to use")
    group.add_argument("-n", "--namespace", metavar="NAME", help="the namespace of this request")
    group.add_argument("-s", "--server", metavar="HOST:PORT", help="the control plane's address")
    group.add_argument("--certificate-authority", metavar="FILE", help="the certificate that signs the server's, PEM")
    group.add_argument("--token-file", metavar="FILE", help="a file that holds the bearer token")
    group.add_argument(
        "--request-timeout", metavar="DURATION", default="30s", help="give up on one request after this (30s)"
    )
    group.add_argument("-v", "--verbosity", action="count", default=0, help="print each call and its duration")


def add_selector_flags(parser: Parser) -> None:
    """-l and --field-selector."""
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="labels: app=web,tier in (a,b),!canary")
    parser.add_argument(
        "--field-selector", metavar="SELECTOR", help="fields: spec.nodeName=node-1,status.phase!=Running"
    )


def add_file_flags(parser: Parser) -> None:
    """-f and -R."""
    parser.add_argument(
        "-f", "--filename", metavar="FILE", action="append", default=[], help="a file, a directory, or - for stdin"
    )
    parser.switch("-R", "--recursive", help="descend into the directories of -f")


def pairs_of(flag: str, words: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` words as a dictionary; Failure names the flag where one is something else."""
    found: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise Failure(f"error: invalid {flag} {word}: it is KEY=VALUE")
        found[key] = value
    return found

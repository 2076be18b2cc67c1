"""The flags of podplane-nodeagent and what they mean. Every flag can also be set as PODPLANE_<NAME> in the environment
(`--state-dir` is PODPLANE_STATE_DIR); the command line wins.

Pure but for reading the environment. Fails with argparse's own message and exit status 2.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.paths import Paths
from podplane import names
from podplane.logging import FORMATS, LEVELS

DEFAULT_STATE = "/var/lib/podplane/nodeagent"
DEFAULT_RUN = "/run/podplane"
RUNTIMES = ("auto", "crun", "runc")

_EXAMPLES = """\
examples:
  podplane-nodeagent run --join 192.0.2.10:7443 --token-file join-token     the first time
  podplane-nodeagent run                                                    ever after
  podplane-nodeagent cleanup                                                remove every trace from this machine
"""


@dataclass(frozen=True, slots=True)
class Config:
    """What the agent runs with."""

    command: str
    paths: Paths
    node_name: str
    join: str = ""
    token_file: str = ""
    node_ip: str = ""
    runtime: str = "auto"
    registries_conf: Path | None = None
    host_path_allow: tuple[Path, ...] = ()
    host_image_hide: tuple[Path, ...] = ()
    cgroup_root: str = "podplane"
    proxy_mode: str = "iptables"
    log_level: str = "info"
    log_format: str = "text"


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Config:
    """The configuration; argparse ends the process where it is wrong."""
    environment = os.environ if environment is None else environment
    options = _parser(environment).parse_args(argv)
    return Config(
        command=options.command,
        paths=Paths(options.state_dir.absolute(), options.run_dir.absolute()),
        node_name=getattr(options, "node_name", ""),
        join=getattr(options, "join", ""),
        token_file=getattr(options, "token_file", ""),
        node_ip=getattr(options, "node_ip", ""),
        runtime=options.runtime,
        registries_conf=getattr(options, "registries_conf", None),
        host_path_allow=tuple(getattr(options, "host_path_allow", None) or ()),
        host_image_hide=tuple(getattr(options, "host_image_hide", None) or ()),
        cgroup_root=options.cgroup_root,
        proxy_mode=options.proxy_mode,
        log_level=options.log_level,
        log_format=options.log_format,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podplane-nodeagent",
        description="Runs pods on this machine for a Podplane control plane.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | cleanup")
    run = commands.add_parser("run", help="run the agent; SIGTERM ends it, and the pods run on")
    cleanup = commands.add_parser("cleanup", help="remove pods, network, rules, mounts and state from this machine")
    for command in (run, cleanup):
        _common(command, environment)
    _running(run, environment)
    return parser


def _common(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    add = _adder(parser, environment)
    add("--state-dir", DEFAULT_STATE, "what outlives a reboot", type=Path)
    add("--run-dir", DEFAULT_RUN, "what ends with the boot; a tmpfs", type=Path)
    add("--runtime", "auto", "OCI runtime", choices=RUNTIMES)
    add("--cgroup-root", "podplane", "cgroup below which pods have theirs", type=_cgroup, metavar="NAME")
    add("--proxy-mode", "iptables", "how services become rules; this version has iptables", choices=("iptables",))
    add("--log-level", "info", "least severe level that is logged", choices=LEVELS)
    add("--log-format", "text", "form of the log lines", choices=FORMATS)


def _running(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    add = _adder(parser, environment)
    add("--join", "", "HOST:PORT of the control plane; needed until the node has joined", metavar="ADDRESS")
    add("--token-file", "", "file with the bootstrap token, or - for stdin; needed to join", metavar="F|-")
    add("--node-name", socket.gethostname().lower(), "the node's name", type=_node_name)
    add("--node-ip", "", "the node's address; default: the source address of the default route", type=_address)
    add("--registries-conf", None, "registries.conf(5); default: the system's", type=_file, metavar="FILE")
    add(
        "--host-path-allow",
        None,
        "hostPath volumes may only lie below these paths, separated by commas; default: anywhere but in the "
        "daemons' own directories",
        type=_paths,
        metavar="PATH,...",
    )
    add(
        "--host-image-hide",
        None,
        "further paths of this machine that containers of `image: host` may not see, separated by commas",
        type=_paths,
        metavar="PATH,...",
    )


def _adder(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> Callable[..., None]:
    def add(flag: str, default: object, words: str, **options: object) -> None:
        variable = "PODPLANE_" + flag.lstrip("-").replace("-", "_").upper()
        shown = f" (default {default})" if default not in ("", None) else ""
        found = environment.get(variable, default)
        choices = options.get("choices")
        if isinstance(choices, tuple) and found not in choices:  # argparse does not look at defaults
            parser.error(f"{variable}={found}: choose from {', '.join(choices)}")
        parser.add_argument(flag, default=found, help=f"{words} [{variable}]{shown}", **options)  # type: ignore[arg-type]

    return add


def _node_name(text: str) -> str:
    if wrong := names.dns_subdomain(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a node's name: {'; '.join(wrong)}")
    return text


def _cgroup(text: str) -> str:
    if not text or "/" in text or text.startswith("."):
        raise argparse.ArgumentTypeError(f"{text!r} must be one name, without a slash")
    return text


def _address(text: str) -> str:
    if not text:
        return text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return path


def _paths(text: str) -> tuple[Path, ...]:
    paths = tuple(Path(part) for part in text.split(",") if part)
    for path in paths:
        if not path.is_absolute() or ".." in path.parts:
            raise argparse.ArgumentTypeError(f"{path} must be absolute, without ..")
    return paths

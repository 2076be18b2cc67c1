"""The flags of podplane-controlplane and what they mean; podplane/options.py says where else they can be set.

Reads the environment and the file of `--config`. Fails with argparse's own message and exit status 2.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.tokens import ROLES
from podplane.logging import FORMATS, LEVELS
from podplane.metrics_server import METRICS_HELP, metrics_address
from podplane.options import Flags, Options

DEFAULT_STATE = "/var/lib/podplane/controlplane"
_CLUSTER_CIDR = ipaddress.IPv4Network("10.244.0.0/16")
_SERVICE_CIDR = ipaddress.IPv4Network("10.96.0.0/16")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host (an IP address) and a port; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Config:
    """What `serve` runs with. Times are in seconds."""

    state: Path
    listen: Address = Address("0.0.0.0", 7443)
    node_listen: Address = Address("0.0.0.0", 7444)
    advertise: tuple[str, ...] = ()
    cluster_cidr: ipaddress.IPv4Network = _CLUSTER_CIDR
    service_cidr: ipaddress.IPv4Network = _SERVICE_CIDR
    heartbeat: int = 3
    node_grace: int = 12
    toleration: int = 15
    metrics: tuple[str, int] | None = None
    """Host and port; None: no metrics are served."""
    log_level: str = "info"
    log_format: str = "text"


_EXAMPLES = """\
examples:
  podplane-controlplane init --advertise 192.0.2.10
  podplane-controlplane serve
  podplane-controlplane token --user bob --role edit --ttl 8h
  podplane-controlplane token --bootstrap --ttl 1h > join-token
"""


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """The command and its options; `command` is init, serve or token."""
    parser = argparse.ArgumentParser(
        prog="podplane-controlplane",
        description="The control plane of Podplane: makes its state, serves the API, makes tokens.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options = Options(parser, environment)
    commands = parser.add_subparsers(dest="command", required=True, metavar="init | serve | token")
    for add in (_add_init, _add_serve, _add_token):
        add(commands, options)
    return options.parse(argv)


def _command(commands: Any, name: str, help: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  podplane-controlplane {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _common(flags: Flags) -> None:
    flags.add("--state-dir", DEFAULT_STATE, "directory of all state", type=Path)


def _advertise(flags: Flags) -> None:
    text = "address or name that clients use, for the server's certificate; may be repeated"
    flags.add("--advertise", [], text, type=_host, many=True, metavar="HOST")


def _add_init(commands: Any, options: Options) -> None:
    text = "make the state directory, certificates, store and admin context; what exists is kept"
    parser = _command(commands, "init", text, "init --advertise 192.0.2.10 --context-file ~/.config/podplane/config")
    flags = options.flags(parser)
    _common(flags)
    _advertise(flags)
    default = Path("~/.config/podplane/config").expanduser()
    flags.add("--context-file", default, "podctl's configuration to write", type=Path)
    flags.add("--context", "podplane", "name of the context in it")
    flags.add("--server", None, "host:port that the context names (default first --advertise, port 7443)")


def _add_serve(commands: Any, options: Options) -> None:
    parser = _command(commands, "serve", "serve the API until SIGTERM", "serve --advertise 192.0.2.10")
    flags = options.flags(parser)
    _common(flags)
    _advertise(flags)
    cidr = ipaddress.IPv4Network
    flags.add("--listen", "0.0.0.0:7443", "address for people and programs", type=address)
    flags.add("--node-listen", "0.0.0.0:7444", "address for node agents", type=address)
    flags.add("--metrics-address", None, METRICS_HELP, type=metrics_address, metavar="HOST:PORT")
    flags.add("--cluster-cidr", str(_CLUSTER_CIDR), "addresses of pods, a /24 a node", type=cidr)
    flags.add("--service-cidr", str(_SERVICE_CIDR), "addresses of services", type=cidr)
    flags.add("--heartbeat-seconds", "3", "time between heartbeats of an agent", type=_positive)
    flags.add("--node-grace-seconds", "12", "silence after which a node is not ready", type=_positive)
    flags.add("--toleration-seconds", "15", "time that pods stay on a lost node", type=_positive)
    flags.add("--log-level", "info", "least severe level that is logged", choices=LEVELS)
    flags.add("--log-format", "text", "form of the log lines", choices=FORMATS)


def _add_token(commands: Any, options: Options) -> None:
    parser = _command(commands, "token", "print a new token", "token --user bob --role view --ttl 1h")
    flags = options.flags(parser)
    _common(flags)
    flags.add("--user", None, "name of the person or program that gets the token")
    flags.add("--role", None, "what it may do", choices=ROLES)
    flags.add("--ttl", "1h", "how long it is good: 30s, 15m, 8h, 7d", type=duration)
    parser.add_argument("--bootstrap", action="store_true", help="a token with which a node joins, and nothing else")


def config_of(options: argparse.Namespace) -> Config:
    """The Config that `serve`'s options mean; ValueError where they contradict each other."""
    config = Config(
        state=options.state_dir,
        listen=options.listen,
        node_listen=options.node_listen,
        advertise=tuple(options.advertise),
        cluster_cidr=options.cluster_cidr,
        service_cidr=options.service_cidr,
        heartbeat=options.heartbeat_seconds,
        node_grace=options.node_grace_seconds,
        toleration=options.toleration_seconds,
        metrics=options.metrics_address,
        log_level=options.log_level,
        log_format=options.log_format,
    )
    if config.cluster_cidr.overlaps(config.service_cidr):
        raise ValueError(f"--cluster-cidr {config.cluster_cidr} and --service-cidr {config.service_cidr} overlap")
    if config.cluster_cidr.prefixlen > 24:
        raise ValueError(f"--cluster-cidr {config.cluster_cidr} is too small: every node gets a /24 of it")
    if config.node_grace <= config.heartbeat:
        raise ValueError("--node-grace-seconds must be greater than --heartbeat-seconds")
    return config


def address(text: str) -> Address:
    """`192.0.2.1:7443` or `[2001:db8::1]:7443`."""
    host, colon, port = text.rpartition(":")
    try:
        return Address(str(ipaddress.ip_address(host.strip("[]"))), _port(port if colon else ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be ADDRESS:PORT, as in 0.0.0.0:7443") from None


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def duration(text: str) -> int:
    """Seconds of `90s`, `15m`, `8h` or `7d`."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number and a unit: 30s, 15m, 8h, 7d")
    return int(match[1]) * _UNITS[match[2]]


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of seconds above 0")
    return int(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z:.-]{1,253}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be an IP address or a host name, without a port")
    return text

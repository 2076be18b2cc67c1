"""The objects that `podctl create TYPE NAME` describes on the command line. Reads files; asks no server.

Shapes, names and defaults are those of kubectl's generators. Fails with Failure and UsageFailure.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from podctl.failure import Failure, UsageFailure
from podplane.v1 import apps_pb2, config_pb2, namespace_pb2, service_pb2

_DOCKER_HUB = "https://index.docker.io/v1/"
_ENV_KEY = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
Maker = Callable[[str, Namespace], Any]


def generated(words: Sequence[str], args: Namespace) -> Any:
    """The object of `TYPE NAME` or `TYPE SUBTYPE NAME`."""
    kind, *rest = words or [""]
    maker: Any = _MAKERS.get(kind)
    if isinstance(maker, dict):
        subtype = rest.pop(0) if rest else ""
        maker = maker.get(subtype)
        if maker is None:
            raise UsageFailure(f"{kind} is made as one of: {', '.join(_MAKERS[kind])}", "create")
    if maker is None:
        raise UsageFailure(f"give -f FILE, or one of: {', '.join(_MAKERS)}", "create")
    if not rest or (len(rest) > 1 and maker is not _deployment):
        raise UsageFailure(f"exactly one NAME is required, got {len(rest)}", "create")
    args.command = rest[1:]
    _refuse_foreign(args, maker)
    return maker(rest[0], args)


def _refuse_foreign(args: Namespace, maker: Maker) -> None:
    """A flag that this generator does not read is a mistake, not a wish to be passed over."""
    for flag in sorted({name for names in _FLAGS.values() for name in names} - set(_FLAGS.get(maker, ()))):
        if getattr(args, flag) not in (None, [], False):
            raise UsageFailure(f"--{flag.replace('_', '-')} is not for this type", "create")


def _namespace(name: str, _args: Namespace) -> Any:
    made = namespace_pb2.Namespace(apiVersion="v1", kind="Namespace")
    made.metadata.name = name
    return made


def _config_map(name: str, args: Namespace) -> Any:
    made = config_pb2.ConfigMap(apiVersion="v1", kind="ConfigMap")
    made.metadata.name = name
    for key, value in _data(args).items():
        try:
            made.data[key] = value.decode()
        except UnicodeDecodeError:
            made.binaryData[key] = value
    return made


def _secret(name: str, args: Namespace) -> Any:
    return _secret_of(name, args.type or "Opaque", _data(args))


def _secret_of(name: str, kind: str, data: dict[str, bytes]) -> Any:
    made = config_pb2.Secret(apiVersion="v1", kind="Secret", type=kind)
    made.metadata.name = name
    for key, value in data.items():
        made.data[key] = value
    return made


def _docker_registry(name: str, args: Namespace) -> Any:
    kind = "kubernetes.io/dockerconfigjson"
    if args.from_file:
        return _secret_of(name, kind, {".dockerconfigjson": _data(args).popitem()[1]})
    if not args.docker_username or not args.docker_password:
        raise Failure("error: either --from-file or --docker-username and --docker-password must be specified")
    login = f"{args.docker_username}:{args.docker_password}"
    entry = {"username": args.docker_username, "password": args.docker_password}
    entry |= {"email": args.docker_email} if args.docker_email else {}
    entry["auth"] = base64.b64encode(login.encode()).decode()
    config = {"auths": {args.docker_server or _DOCKER_HUB: entry}}
    return _secret_of(name, kind, {".dockerconfigjson": json.dumps(config, separators=(",", ":")).encode()})


def _tls(name: str, args: Namespace) -> Any:
    if not args.cert or not args.key:
        raise Failure("error: key and cert must be specified")
    data = {"tls.crt": _read(Path(args.cert)), "tls.key": _read(Path(args.key))}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(args.cert, args.key, password="")
    except (ssl.SSLError, OSError) as error:
        raise Failure(f"error: {args.cert} and {args.key} are no certificate with its key: {error}") from None
    return _secret_of(name, "kubernetes.io/tls", data)


def _deployment(name: str, args: Namespace) -> Any:
    if not args.image:
        raise Failure('error: required flag(s) "image" not set')
    if len(args.image) > 1 and args.command:
        raise Failure("error: cannot specify multiple --image options and command")
    made = apps_pb2.Deployment(apiVersion="apps/v1", kind="Deployment")
    made.metadata.name = name
    made.spec.replicas = 1 if args.replicas is None else args.replicas
    for labels in (made.metadata.labels, made.spec.selector.matchLabels, made.spec.template.metadata.labels):
        labels["app"] = name
    for image in args.image:
        container = made.spec.template.spec.containers.add(name=_name_of_image(image), image=image)
        container.command.extend(args.command)
        if args.port:
            container.ports.add(containerPort=args.port)
    return made


def _name_of_image(image: str) -> str:
    """`web` for `registry:5000/shop/Web_1:2@sha256:...`."""
    last = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return re.sub(r"[^a-z0-9-]", "-", last.lower()).strip("-")[:63] or "main"


def _service(kind: str, name: str, args: Namespace) -> Any:
    headless = args.clusterip == "None"
    if not args.tcp and not headless and kind != "ExternalName":
        raise Failure("error: at least one tcp port specifier must be provided")
    made = service_pb2.Service(apiVersion="v1", kind="Service")
    made.metadata.name = name
    made.metadata.labels["app"] = made.spec.selector["app"] = name
    made.spec.type = kind
    if args.clusterip:
        made.spec.clusterIP = args.clusterip
    if kind == "ExternalName":
        if not args.external_name:
            raise Failure('error: required flag(s) "external-name" not set')
        made.spec.externalName = args.external_name
    for word in (part for group in args.tcp for part in group.split(",")):
        _port(made, word, args.node_port)
    return made


def _port(service: Any, word: str, node_port: int | None) -> None:
    port, _, target = word.partition(":")
    target = target or port
    if not port.isascii() or not port.isdigit():
        raise Failure(f"error: invalid --tcp {word}: it is PORT or PORT:TARGET")
    made = service.spec.ports.add(name=word.replace(":", "-"), port=int(port), protocol="TCP")
    if target.isascii() and target.isdigit():
        made.targetPort.number_value = int(target)
    else:
        made.targetPort.string_value = target
    if node_port:
        made.nodePort = node_port


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _data(args: Namespace) -> dict[str, bytes]:
    if args.from_env_file and (args.from_literal or args.from_file):
        raise Failure("error: from-env-file cannot be combined with from-file or from-literal")
    pairs: list[tuple[str, bytes]] = []
    for literal in args.from_literal:
        key, separator, value = literal.partition("=")
        if not separator or not key:
            raise Failure(f"error: invalid literal source {literal}, expected key=value")
        pairs.append((key, value.encode()))
    for source in args.from_file:
        pairs += _from_file(source)
    for source in args.from_env_file:
        pairs += _from_env_file(Path(source))
    found: dict[str, bytes] = {}
    for key, content in pairs:
        if key in found:
            raise Failure(f'error: cannot add key "{key}", another key by that name already exists')
        found[key] = content
    return found


def _from_file(source: str) -> list[tuple[str, bytes]]:
    key, separator, name = source.rpartition("=")
    path = Path(name)
    if path.is_dir():
        if separator:
            raise Failure("error: cannot give a key name for a directory path")
        return [(one.name, _read(one)) for one in sorted(path.iterdir()) if one.is_file()]
    return [(key or path.name, _read(path))]


def _from_env_file(path: Path) -> list[tuple[str, bytes]]:
    """`KEY=VALUE` lines as they are, without quotes of any meaning; a bare `KEY` takes the caller's variable."""
    pairs = []
    for number, line in enumerate(_read(path).decode("utf-8-sig", "surrogateescape").splitlines(), 1):
        words = line.lstrip()
        if not words or words.startswith("#"):
            continue
        key, separator, value = words.partition("=")
        if not _ENV_KEY.fullmatch(key):
            raise Failure(f'error: {path}: line {number}: "{key}" is no name of a variable')
        if separator or key in os.environ:
            pairs.append((key, (value if separator else os.environ[key]).encode("utf-8", "surrogateescape")))
    return pairs


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"error: cannot read {path}: {error.strerror}") from None


def _cluster_ip(name: str, args: Namespace) -> Any:
    return _service("ClusterIP", name, args)


def _node_port(name: str, args: Namespace) -> Any:
    return _service("NodePort", name, args)


def _load_balancer(name: str, args: Namespace) -> Any:
    return _service("LoadBalancer", name, args)


def _external_name(name: str, args: Namespace) -> Any:
    return _service("ExternalName", name, args)


_SECRETS: dict[str, Maker] = {"generic": _secret, "docker-registry": _docker_registry, "tls": _tls}
_SERVICES: dict[str, Maker] = {
    "clusterip": _cluster_ip,
    "nodeport": _node_port,
    "loadbalancer": _load_balancer,
    "externalname": _external_name,
}
_MAKERS: dict[str, Any] = {
    "namespace": _namespace,
    "ns": _namespace,
    "configmap": _config_map,
    "cm": _config_map,
    "secret": _SECRETS,
    "deployment": _deployment,
    "deploy": _deployment,
    "service": _SERVICES,
    "svc": _SERVICES,
}
_FILES = ("from_literal", "from_file", "from_env_file")
_FLAGS: dict[Maker, tuple[str, ...]] = {
    _config_map: _FILES,
    _secret: (*_FILES, "type"),
    _docker_registry: ("from_file", "docker_username", "docker_password", "docker_email", "docker_server"),
    _tls: ("cert", "key"),
    _deployment: ("image", "replicas", "port", "command"),
    _cluster_ip: ("tcp", "clusterip"),
    _node_port: ("tcp", "node_port"),
    _load_balancer: ("tcp",),
    _external_name: ("tcp", "external_name"),
}

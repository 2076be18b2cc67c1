"""podctl expose: makes a service for a pod or workload."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podctl.client import connect
from podctl.failure import Failure
from podctl.flags import Parser, pairs_of
from podctl.resources import one_target
from podctl.submitting import Reporter, add_result_flags, create
from podplane.kinds import POD, SERVICE
from podplane.v1 import service_pb2

USAGE = "(TYPE NAME | TYPE/NAME) [--port=N] [--target-port=N|NAME] [--type=TYPE] [--name=NAME] [flags]"
EXAMPLES = """
  podctl expose deployment web --port=80 --target-port=8080
  podctl expose pod web --port=80 --type=NodePort --name=front
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE NAME", nargs="+", help="a pod, deployment, replica set or service")
    parser.add_argument("--port", metavar="N", help="the service's port (the containers' own)")
    parser.add_argument("--target-port", metavar="N", help="the container's port, a number or a name (as --port)")
    parser.add_argument("--protocol", choices=("TCP", "UDP"), default="TCP", help="TCP")
    parser.add_argument("--name", metavar="NAME", help="the service's name (the object's)")
    types = ("ClusterIP", "NodePort", "LoadBalancer")
    parser.add_argument("--type", choices=types, default="ClusterIP", help="ClusterIP")
    parser.add_argument("--selector", metavar="LIST", help="KEY=VALUE,... (what the object selects its pods by)")
    parser.add_argument("-l", "--labels", metavar="LIST", help="the service's labels (the object's)")
    parser.add_argument("--cluster-ip", metavar="ADDRESS", help="the service's address; None for a headless one")
    parser.add_argument("--session-affinity", choices=("None", "ClientIP"), help="None")
    add_result_flags(parser)


def run(args: Namespace) -> int:
    kind, name = one_target(args.what)
    with connect(args) as client:
        obj = client.get(kind, client.namespace, name)
        service = service_pb2.Service(apiVersion="v1", kind="Service")
        service.metadata.name = args.name or name
        labels = pairs_of("--labels", args.labels.split(",")) if args.labels else dict(obj.metadata.labels)
        service.metadata.labels.update(labels)
        service.spec.selector.update(_selector(args, obj))
        service.spec.type = args.type
        if args.cluster_ip:
            service.spec.clusterIP = args.cluster_ip
        if args.session_affinity:
            service.spec.sessionAffinity = args.session_affinity
        _ports(args, obj, service)
        Reporter(args).report(SERVICE, create(client, args, service), "exposed")
    return 0


def _selector(args: Namespace, obj: Any) -> dict[str, str]:
    if args.selector:
        return pairs_of("--selector", args.selector.split(","))
    if obj.kind == POD.name:
        if not obj.metadata.labels:
            raise Failure(
                "error: couldn't retrieve selectors via --selector flag or introspection: "
                "the pod has no labels and cannot be exposed"
            )
        return dict(obj.metadata.labels)
    found = getattr(obj.spec, "selector", None) if hasattr(obj, "spec") else None
    if found is None:
        raise Failure(f"error: cannot expose a {obj.kind}")
    if not hasattr(found, "matchLabels"):
        return dict(found)
    if found.matchExpressions:
        raise Failure("error: couldn't convert expressions of the selector to a service's selector: give --selector")
    return dict(found.matchLabels)


def _ports(args: Namespace, obj: Any, service: Any) -> None:
    ports = [int(word) for word in args.port.split(",")] if _numbers(args.port) else _own_ports(obj)
    if not ports and args.cluster_ip != "None":
        raise Failure("error: couldn't find port via --port flag or introspection")
    for number in ports:
        port = service.spec.ports.add(port=number, protocol=args.protocol)
        if len(ports) > 1:
            port.name = f"port-{len(service.spec.ports)}"
        target = args.target_port or str(number)
        if target.isascii() and target.isdigit():
            port.targetPort.number_value = int(target)
        else:
            port.targetPort.string_value = target


def _numbers(text: str | None) -> bool:
    if text and not all(word.isascii() and word.isdigit() for word in text.split(",")):
        raise Failure(f"error: invalid --port {text}: it is a number, or numbers separated by commas")
    return bool(text)


def _own_ports(obj: Any) -> list[int]:
    if obj.kind == SERVICE.name:
        return [port.port for port in obj.spec.ports]
    spec = obj.spec.template.spec if hasattr(obj.spec, "template") else obj.spec
    return [port.containerPort for container in spec.containers for port in container.ports]

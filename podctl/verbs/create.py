"""podctl create: objects from manifests, or of the usual kinds from the command line."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podctl.client import Client, connect
from podctl.failure import UsageFailure
from podctl.flags import Parser, add_file_flags
from podctl.manifests import Manifest
from podctl.submitting import Reporter, add_result_flags, create, submit_all
from podplane.kinds import kind_of

USAGE = "(-f FILE | TYPE [SUBTYPE] NAME) [flags]"
EXAMPLES = """
  podctl create -f web.yaml
  podctl create namespace shop
  podctl create configmap settings --from-literal=colour=blue --from-file=app.conf
  podctl create secret generic password --from-file=password=/run/secrets/password
  podctl create secret tls web --cert=web.crt --key=web.key
  podctl create deployment web --image=nginx --replicas=3 --port=80
  podctl create service nodeport web --tcp=80:8080
"""


def configure(parser: Parser) -> None:
    types = "namespace, configmap, secret generic|tls|docker-registry, deployment, service clusterip|nodeport|..."
    parser.add_argument("what", metavar="TYPE NAME", nargs="*", help=types)
    add_file_flags(parser)
    data = parser.add_argument_group("config maps and secrets")
    data.add_argument("--from-literal", metavar="KEY=VALUE", action="append", default=[],
                      help="a key; a secret's value is better read from a file")  # fmt: skip
    data.add_argument("--from-file", metavar="[KEY=]PATH", action="append", default=[],
                      help="a file, or every file of a directory")  # fmt: skip
    data.add_argument("--from-env-file", metavar="PATH", action="append", default=[], help="a file of KEY=VALUE lines")
    data.add_argument("--type", help="generic: the secret's type (Opaque)")
    data.add_argument("--cert", metavar="FILE", help="tls: the certificate, PEM")
    data.add_argument("--key", metavar="FILE", help="tls: its key, PEM")
    for name in ("username", "password", "email", "server"):
        data.add_argument(f"--docker-{name}", metavar=name.upper(), help=f"docker-registry: the {name}")
    workload = parser.add_argument_group("deployments")
    workload.add_argument("--image", metavar="IMAGE", action="append", default=[], help="a container's image")
    workload.add_argument("--replicas", metavar="N", type=int, help="how many pods (1)")
    workload.add_argument("--port", metavar="N", type=int, help="the port that the container listens on")
    service = parser.add_argument_group("services")
    service.add_argument("--tcp", metavar="PORT:TARGET", action="append", default=[], help="a port")
    service.add_argument("--clusterip", metavar="ADDRESS", help="the service's address; None for a headless one")
    service.add_argument("--node-port", metavar="N", type=int, help="the port on every node")
    service.add_argument("--external-name", metavar="HOST", help="the name that externalname stands for")
    add_result_flags(parser)


def run(args: Namespace) -> int:
    if args.filename and args.what:
        raise UsageFailure(f"-f takes no further arguments, only {' '.join(args.what)} was given as well", "create")
    made = None
    if not args.filename:
        from podctl.generating import generated

        made = generated(args.what, args)
    reporter = Reporter(args)
    with connect(args) as client:
        if made is None:
            return submit_all(args, client, _create, "creating")
        reporter.report(kind_of(made), create(client, args, made), "created")
    return 0


def _create(client: Client, item: Manifest) -> tuple[Any, str]:
    return client.write("Create", item.obj), "created"

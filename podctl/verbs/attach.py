"""podctl attach: the terminal or pipe becomes that of a container that runs."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from podctl.client import Client, connect
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.podtarget import default_container, one_pod
from podctl.terminal import converse, is_terminal
from podplane.v1.requests_pb2 import ExecRequest

USAGE = "(POD | TYPE/NAME) [-c CONTAINER] [-i] [-t]"
EXAMPLES = """
  podctl attach web
  podctl attach web -c shell -it
  podctl attach deployment/web
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="POD", nargs="*", help="a pod, or TYPE/NAME of what has pods")
    parser.add_argument("-c", "--container", metavar="NAME", help="the container (the default one, or the first)")
    parser.switch("-i", "--stdin", help="pass stdin on to the container")
    parser.switch("-t", "--tty", help="stdin is a terminal")
    parser.switch("-q", "--quiet", help="print what the container prints, and nothing else")


def run(args: Namespace) -> int:
    if len(args.what) != 1:
        raise UsageFailure(f"expected POD or TYPE/NAME, got {len(args.what)} arguments", "attach")
    with connect(args) as client:
        pod = one_pod(client, args.what[0])
        if pod.status.phase in ("Succeeded", "Failed"):
            raise Failure(f"error: cannot attach a container in a completed pod; current phase is {pod.status.phase}")
        name = args.container or default_container(pod, quiet=args.quiet)
        attach(client, pod, name, stdin=args.stdin, tty=args.tty, quiet=args.quiet)
    return 0


def attach(client: Client, pod: Any, name: str, *, stdin: bool, tty: bool, quiet: bool) -> None:
    """Attach until the container's end. What the container was not made for is said and left out, as kubectl does."""
    container = _container(pod, name)
    if stdin and not container.stdin:
        print(f"Warning: container {name} reads no stdin: its spec has no stdin: true", file=sys.stderr)
        stdin = False
    if tty and not container.tty and not quiet:
        print(f"error: Unable to use a TTY - container {name} did not allocate one", file=sys.stderr)
    raw = stdin and container.tty and is_terminal()
    start = ExecRequest.Start(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        container=name,
        stdin=stdin,
        stdout=True,
        stderr=not container.tty,
        tty=container.tty,
    )
    if raw and not quiet:
        print("If you don't see a command prompt, try pressing enter.", file=sys.stderr)
    converse(client, "Pods/Attach", start, raw=raw, redraw=True)
    if raw and not quiet and pod.spec.restartPolicy in ("", "Always"):
        command = f"podctl attach {pod.metadata.name} -c {name} -i -t"
        print(f"Session ended, resume using '{command}' command when the pod is running")


def _container(pod: Any, name: str) -> Any:
    for one in (*pod.spec.containers, *pod.spec.initContainers):
        if one.name == name:
            return one
    raise Failure(f"error: container {name} not found in pod {pod.metadata.name}")

"""podctl exec: runs a command in a container; its exit status is podctl's."""

from __future__ import annotations

import sys
from argparse import Namespace

from podctl.client import connect
from podctl.durations import seconds_flag
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.podtarget import default_container, one_pod
from podctl.terminal import converse, is_terminal
from podplane.v1.requests_pb2 import ExecRequest, ExecResponse

USAGE = "(POD | TYPE/NAME) [-c CONTAINER] [-i] [-t] -- COMMAND [ARGS...]"
EXAMPLES = """
  podctl exec web -- cat /etc/hostname
  podctl exec -it web -- /bin/sh
  podctl exec -i web -c app -- tar xf - -C /tmp < files.tar
  podctl exec deployment/web --timeout 10s -- /usr/bin/migrate
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="POD", nargs="*", help="a pod, or TYPE/NAME of what has pods; then the command")
    parser.add_argument("-c", "--container", metavar="NAME", help="the container (the default one, or the first)")
    parser.switch("-i", "--stdin", help="pass stdin on to the command")
    parser.switch("-t", "--tty", help="give the command a terminal; stdin must be one")
    parser.switch("-q", "--quiet", help="print what the command prints, and nothing else")
    parser.add_argument("--timeout", metavar="DURATION", default="0s", help="kill the command after this (never)")


def run(args: Namespace) -> int:
    if not args.what:
        raise UsageFailure("pod or type/name must be specified", "exec")
    target, *command = args.what
    if not command:
        raise UsageFailure("you must specify at least one command for the container", "exec")
    seconds = seconds_flag("--timeout", args.timeout)
    terminal = args.tty and args.stdin and is_terminal()
    if args.tty and args.stdin and not terminal:
        print("Unable to use a TTY - input is not a terminal or the right kind of file", file=sys.stderr)
    with connect(args) as client:
        pod = one_pod(client, target)
        if pod.status.phase in ("Succeeded", "Failed"):
            phase = pod.status.phase
            raise Failure(f"error: cannot exec into a container in a completed pod; current phase is {phase}")
        start = ExecRequest.Start(
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            container=args.container or default_container(pod, quiet=args.quiet),
            command=command,
            stdin=args.stdin,
            stdout=True,
            stderr=not args.tty,
            tty=args.tty and (terminal or not args.stdin),
            timeoutSeconds=max(1, round(seconds)) if seconds > 0 else None,
        )
        return _status(converse(client, "Pods/Exec", start, raw=terminal))


def _status(end: ExecResponse.Exit) -> int:
    if end.message:
        print(f"error: {end.message}", file=sys.stderr)
    elif end.code:
        print(f"command terminated with exit code {end.code}", file=sys.stderr)
    return end.code

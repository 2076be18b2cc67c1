"""podctl run: makes a pod from the command line and, where asked for, attaches to it and removes it afterwards."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from typing import Any

from podctl import patching
from podctl.client import Client, Query, connect
from podctl.durations import seconds_flag
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser, pairs_of
from podctl.logstreams import Source, print_all
from podctl.output import tree
from podctl.resources import quoted_word
from podctl.submitting import Reporter, add_result_flags, create
from podctl.verbs.attach import attach
from podctl.watching import TimedOut, Watcher
from podplane.errors import Invalid, NotFound, PodplaneError
from podplane.kinds import POD, SERVICE
from podplane.manifest.reading import from_tree
from podplane.v1 import pod_pb2, requests_pb2, service_pb2

USAGE = "NAME --image=IMAGE [--env=KEY=VALUE] [--port=N] [-i] [-t] [--rm] [-- COMMAND|ARGS...]"
EXAMPLES = """
  podctl run web --image=nginx --port=80 --expose
  podctl run shell -it --rm --restart=Never --image=busybox -- sh
  podctl run job --image=host --restart=Never --command -- /usr/bin/env
"""

_DONE = ("Succeeded", "Failed")


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="NAME", nargs="*", help="the pod's name; then, after --, its arguments")
    parser.add_argument("--image", metavar="IMAGE", help="the container's image")
    parser.add_argument("--image-pull-policy", choices=("Always", "IfNotPresent", "Never"), help="when to pull it")
    parser.add_argument("--env", metavar="KEY=VALUE", action="append", default=[], help="a variable")
    parser.add_argument("--labels", metavar="LIST", help="KEY=VALUE,... (run=NAME)")
    parser.add_argument("--annotations", metavar="KEY=VALUE", action="append", default=[], help="an annotation")
    parser.add_argument("--port", metavar="N", type=int, help="the port that the container listens on")
    parser.switch("--expose", help="make a ClusterIP service for --port as well")
    parser.add_argument("--restart", choices=("Always", "OnFailure", "Never"), default="Always", help="Always")
    parser.switch("--command", help="what follows -- is the command, not its arguments")
    parser.switch("--privileged", help="run the container privileged")
    parser.add_argument("--overrides", metavar="JSON", help="a JSON merge patch of the pod")
    parser.switch("-i", "--stdin", help="keep stdin open and attach to it")
    parser.switch("-t", "--tty", help="give the container a terminal")
    parser.switch("--attach", help="wait for the pod and attach to it (with -i: true)")
    parser.switch("--rm", help="delete the pod after the container's end; only with --attach or -i")
    parser.switch("-q", "--quiet", help="print what the container prints, and nothing else")
    parser.add_argument("--pod-running-timeout", metavar="DURATION", default="1m", help="wait so long for it (1m)")
    add_result_flags(parser)


def run(args: Namespace) -> int:
    attaches = args.attach or args.stdin
    _check(args, attaches)
    pod = _pod(args)
    reporter = Reporter(args)
    with connect(args) as client:
        if args.expose:
            reporter.report(SERVICE, create(client, args, _service(args)), "created")
        made = create(client, args, pod)
        if not attaches:
            reporter.report(POD, made, "created")
        if not attaches or args.dry_run != "none":
            return 0
        try:
            return _follow(args, client, made)
        finally:
            if args.rm:
                _remove(args, client, made)


def _check(args: Namespace, attaches: bool) -> None:
    if not args.what:
        raise UsageFailure("NAME is required for run", "run")
    if not args.image:
        raise UsageFailure('required flag(s) "image" not set', "run")
    if args.rm and not attaches:
        raise UsageFailure("--rm should only be used for attached containers", "run")
    if args.expose and not args.port:
        raise UsageFailure("--port must be set when exposing a service", "run")
    if args.tty and not args.stdin:
        raise UsageFailure("-i/--stdin is required for containers with -t/--tty=true", "run")
    if attaches and args.dry_run != "none":
        raise UsageFailure(
            "--dry-run=client|server can't be used with attached containers options (--attach, --stdin)", "run"
        )


def _pod(args: Namespace) -> Any:
    name, *words = args.what
    made = pod_pb2.Pod(apiVersion="v1", kind="Pod")
    made.metadata.name = name
    made.metadata.labels.update(pairs_of("--labels", args.labels.split(",") if args.labels else [f"run={name}"]))
    made.metadata.annotations.update(pairs_of("--annotations", args.annotations))
    made.spec.restartPolicy = args.restart
    container = made.spec.containers.add(name=name, image=args.image)
    (container.command if args.command else container.args).extend(words)
    for key, value in pairs_of("--env", args.env).items():
        container.env.add(name=key, value=value)
    if args.image_pull_policy:
        container.imagePullPolicy = args.image_pull_policy
    if args.port:
        container.ports.add(containerPort=args.port)
    if args.privileged:
        container.securityContext.privileged = True
    if args.stdin:
        container.stdin, container.stdinOnce = True, True
    if args.tty:
        container.tty = True
    return _overridden(made, args.overrides) if args.overrides else made


def _overridden(pod: Any, overrides: str) -> Any:
    try:
        return from_tree(patching.merge(tree(pod), json.loads(overrides)), type(pod))
    except (ValueError, Invalid) as error:
        raise Failure(f"error: --overrides: {error}") from None


def _service(args: Namespace) -> Any:
    made = service_pb2.Service(apiVersion="v1", kind="Service")
    made.metadata.name = args.what[0]
    made.spec.selector.update(pairs_of("--labels", args.labels.split(",") if args.labels else [f"run={args.what[0]}"]))
    port = made.spec.ports.add(port=args.port, protocol="TCP")
    port.targetPort.number_value = args.port
    return made


def _follow(args: Namespace, client: Client, pod: Any) -> int:
    """Attach, or print the log of what has ended already; the container's exit status where it is not restarted."""
    name = pod.spec.containers[0].name
    deadline = time.monotonic() + seconds_flag("--pod-running-timeout", args.pod_running_timeout)
    pod = _when(client, pod, lambda found: found.status.phase in ("Running", *_DONE), deadline)
    try:
        if pod.status.phase in _DONE:
            raise NotFound(f'container not found ("{name}")')
        attach(client, pod, name, stdin=args.stdin, tty=args.tty, quiet=args.quiet)
    except (NotFound, Invalid):  # it has ended meanwhile
        request = requests_pb2.LogsRequest(namespace=pod.metadata.namespace, name=pod.metadata.name, container=name)
        print_all([Source(client, request)], prefix=False, together=False, ignore_errors=False)
    if pod.spec.restartPolicy == "Always":
        return 0
    return _exit_status(_when(client, pod, lambda found: found.status.phase in _DONE, None), name, quiet=args.quiet)


def _when(client: Client, pod: Any, test: Any, deadline: float | None) -> Any:
    """The pod once the test holds. Failure at the deadline, or where the pod is gone."""
    query = Query(pod.metadata.namespace, fields=f"metadata.name={pod.metadata.name}")
    page = client.list(POD, query)
    for found in page.items:
        if test(found):
            return found
    try:
        for change in Watcher(client, POD, query, page.items, page.revision, deadline).changes():
            if change.type == "DELETED":
                raise Failure(f"error: pod {pod.metadata.name} was deleted")
            if test(change.object):
                return change.object
    except TimedOut:
        raise Failure("error: timed out waiting for the condition") from None
    raise AssertionError("a watch without an end has ended")


def _exit_status(pod: Any, name: str, *, quiet: bool) -> int:
    for status in pod.status.containerStatuses:
        if status.name == name and status.state.HasField("terminated"):
            end = status.state.terminated
            if end.exitCode and not quiet:
                where = f"{pod.metadata.namespace}/{pod.metadata.name}"
                print(f"pod {where} terminated ({end.reason})", file=sys.stderr)
            return int(end.exitCode)
    raise Failure(f"error: pod {pod.metadata.name} has failed: {pod.status.reason} {pod.status.message}".rstrip())


def _remove(args: Namespace, client: Client, pod: Any) -> None:
    try:
        client.delete(POD, pod.metadata.namespace, pod.metadata.name)
    except NotFound:
        return
    except PodplaneError as error:
        raise Failure(f"error: cannot delete pod {pod.metadata.name}: {error}") from None
    if not args.quiet:
        print(f"{quoted_word(POD, pod.metadata.name)} deleted")

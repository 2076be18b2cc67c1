"""podctl drain: cordons nodes and evicts their pods, so that the machines can be worked on."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from podctl.client import Client, Query, connect
from podctl.durations import seconds_flag
from podctl.errors import wording
from podctl.failure import Failure
from podctl.flags import Parser
from podctl.resources import object_word
from podctl.scheduling import chosen_nodes, configure_nodes, cordon
from podctl.watching import TimedOut, await_gone
from podplane.errors import NotFound, PodplaneError
from podplane.kinds import NODE, POD
from podplane.v1 import pod_pb2, requests_pb2

USAGE = "NODE... [--force] [--delete-emptydir-data] [--grace-period=N] [--timeout=DURATION]"
EXAMPLES = """
  podctl drain node-1
  podctl drain node-1 --force --delete-emptydir-data --grace-period=10
  podctl drain -l rack=a --pod-selector=app=web
"""
_FINAL = ("Succeeded", "Failed")


def configure(parser: Parser) -> None:
    configure_nodes(parser)
    parser.switch("--force", help="also pods that no controller would replace")
    parser.switch("--delete-emptydir-data", help="also pods whose emptyDir volumes go with them")
    parser.switch("--ignore-daemonsets", help="leave pods of daemon sets where they are")
    parser.switch("--disable-eviction", help="delete the pods instead of evicting them")
    parser.add_argument("--pod-selector", metavar="SELECTOR", help="only pods with these labels")
    parser.add_argument("--grace-period", metavar="SECONDS", type=int, default=-1, help="the pods' own where negative")
    parser.add_argument("--timeout", metavar="DURATION", default="0s", help="give up waiting after this (0: never)")
    parser.add_argument("--dry-run", choices=("none", "client"), default="none", help="client: change nothing")


def run(args: Namespace) -> int:
    seconds = seconds_flag("--timeout", args.timeout)
    deadline = time.monotonic() + seconds if seconds > 0 else None
    with connect(args) as client:
        nodes = chosen_nodes(args, client)
        suffix = " (dry run)" if args.dry_run != "none" else ""
        for name in nodes:
            changed = args.dry_run != "none" or cordon(client, name, unschedulable=True)
            print(f"{object_word(NODE, name)} {'cordoned' if changed else 'already cordoned'}{suffix}", flush=True)
        failed = [name for name in nodes if not _drained(args, client, name, deadline)]
    if failed:
        print("There are pending nodes to be drained:", file=sys.stderr)
        for name in failed:
            print(f" {name}", file=sys.stderr)
    return 1 if failed else 0


def _drained(args: Namespace, client: Client, name: str, deadline: float | None) -> bool:
    pods = client.list(POD, Query("", args.pod_selector or "", f"spec.nodeName={name}")).items
    pods = [pod for pod in pods if not (args.ignore_daemonsets and _owner(pod) == "DaemonSet")]
    if obstacles := list(_obstacles(args, pods)):
        words = ", ".join(obstacles)
        print(f'error: unable to drain node "{name}" due to error: {words}, continuing command...', file=sys.stderr)
        return False
    try:
        for pod in pods:
            _evict(args, client, pod)
        for pod in pods if args.dry_run == "none" else ():
            await_gone(client, POD, pod.metadata.namespace, pod.metadata.name, pod.metadata.uid, deadline)
            word = "deleted" if args.disable_eviction else "evicted"
            print(f"{object_word(POD, pod.metadata.name)} {word}", flush=True)
    except TimedOut:
        seconds = seconds_flag("--timeout", args.timeout)
        print(f'error: unable to drain node "{name}": the pods did not end within {seconds:g} s', file=sys.stderr)
        return False
    except PodplaneError as error:
        print(f'error: unable to drain node "{name}": {wording(error)}', file=sys.stderr)
        return False
    print(f"{object_word(NODE, name)} drained{' (dry run)' if args.dry_run != 'none' else ''}", flush=True)
    return True


def _obstacles(args: Namespace, pods: list[Any]) -> Iterator[str]:
    """Why pods must not be evicted without being asked to; what has ended is in nobody's way."""
    running = [pod for pod in pods if pod.status.phase not in _FINAL and not pod.metadata.HasField("deletionTimestamp")]
    daemons = [pod for pod in running if _owner(pod) == "DaemonSet"]
    alone = [pod for pod in running if not _owner(pod)]
    local = [pod for pod in running if any(volume.HasField("emptyDir") for volume in pod.spec.volumes)]
    if daemons:
        yield f"cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): {_listed(daemons)}"
    if alone and not args.force:
        yield f"cannot delete Pods that declare no controller (use --force to override): {_listed(alone)}"
    if local and not args.delete_emptydir_data:
        yield f"cannot delete Pods with local storage (use --delete-emptydir-data to override): {_listed(local)}"


def _owner(pod: Any) -> str:
    return next((owner.kind for owner in pod.metadata.ownerReferences if owner.controller), "")


def _listed(pods: list[Any]) -> str:
    return ", ".join(f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in pods)


def _evict(args: Namespace, client: Client, pod: Any) -> None:
    namespace, name = pod.metadata.namespace, pod.metadata.name
    print(f"{'deleting' if args.disable_eviction else 'evicting'} pod {namespace}/{name}", flush=True)
    if args.dry_run != "none":
        return
    grace = args.grace_period if args.grace_period >= 0 else None
    try:
        if args.disable_eviction:
            client.delete(POD, namespace, name, grace=grace)
        else:
            request = requests_pb2.EvictRequest(namespace=namespace, name=name, gracePeriodSeconds=grace)
            request.preconditions.uid = pod.metadata.uid
            client.call("Pods/Evict", request, pod_pb2.Pod)
    except NotFound:
        pass  # it has ended by itself
    except PodplaneError as error:
        raise Failure(wording(error) or str(error)) from None

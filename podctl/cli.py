"""Finds the verb on the command line, imports that verb alone, runs it, and prints how it failed.

Every verb is a module of podctl.verbs with `USAGE`, `EXAMPLES`, `configure(parser)` and `run(args) -> exit status`.
The table below is all that is read before: `podctl version --client` must not pay for gRPC.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from podctl.failure import Failure, UsageFailure
from podctl.flags import VALUE_FLAGS, Parser, add_global_flags

VERBS: dict[str, dict[str, str]] = {
    "Basic commands": {
        "apply": "Make objects as manifests say: create what is missing, change what differs",
        "create": "Create objects from manifests, or of the usual kinds from the command line",
        "run": "Make a pod from the command line, and attach to it where asked for",
        "replace": "Make objects exactly what manifests say",
        "patch": "Change fields of objects",
        "get": "List objects",
        "diff": "Show what an apply of manifests would change",
        "edit": "Change an object in your editor",
        "describe": "Show objects in detail, with their events",
        "delete": "Delete objects by manifest, by name or by selector",
        "explain": "Say what a pod's or node's status means, its cause and its fix",
        "why": "Say why a service answers or not: its pods, every node's rules, where a packet goes",
    },
    "Workloads": {
        "scale": "Set the number of replicas of a deployment or replica set",
        "set": "Change images, variables or resources of a workload's containers",
        "expose": "Make a service for a pod or workload",
        "rollout": "Follow, restart, list and undo the rollouts of a deployment",
        "wait": "Wait until objects meet a condition",
    },
    "Looking into pods": {
        "logs": "Print the logs of containers",
        "exec": "Run a command in a container",
        "attach": "Take over the stdin and output of a container that runs",
        "cp": "Copy files and directories to and from containers",
        "port-forward": "Make ports of a pod reachable on this machine",
        "top": "Show how much CPU and memory pods or nodes use",
        "events": "List events, the newest last",
        "timeline": "Show a pod's life as a waterfall of what happened when",
    },
    "Nodes": {
        "cordon": "Mark nodes as unschedulable",
        "uncordon": "Mark nodes as schedulable",
        "drain": "Cordon nodes and evict their pods",
        "taint": "Set or remove taints of nodes",
    },
    "Metadata": {
        "label": "Set or remove labels",
        "annotate": "Set or remove annotations",
    },
    "Access and settings": {
        "auth": "Ask what you may do and who you are",
        "config": "Show and choose contexts",
        "api-resources": "List the kinds there are",
        "completion": "Print a script that completes podctl's command lines in bash",
        "version": "Print the versions of podctl and of the control plane",
    },
}


def run(argv: Sequence[str]) -> int:
    """Run one command line; the exit status. Failures are printed to stderr."""
    try:
        return _dispatch(list(argv))
    except Failure as failure:
        sys.stdout.flush()
        print(failure.message, file=sys.stderr)
        return failure.status
    except Exception as error:
        # The import waits until here: the paths that need no server must not pay for gRPC.
        from podctl.errors import wording

        message = wording(error)
        if message is None:
            raise
        sys.stdout.flush()
        print(message, file=sys.stderr)
        return 1


def _dispatch(argv: list[str]) -> int:
    before, verb, after = _split(argv)
    if verb == "help":
        verb, after = (after[0], ["--help"]) if after else ("", [])
    if not verb:
        return _overview(before)
    if verb not in known_verbs():
        raise UsageFailure(_unknown(verb))
    module = import_module(f"podctl.verbs.{verb.replace('-', '_')}")
    parser = Parser(verb, module.USAGE, known_verbs()[verb], module.EXAMPLES)
    module.configure(parser)
    add_global_flags(parser)
    status = module.run(parser.read(before + after))
    return int(status)


def known_verbs() -> dict[str, str]:
    """Every verb and its summary."""
    return {verb: summary for group in VERBS.values() for verb, summary in group.items()}


def _split(argv: list[str]) -> tuple[list[str], str, list[str]]:
    """(global flags before the verb, the verb, what follows)."""
    index = 0
    while index < len(argv) and argv[index].startswith("-"):
        index += 2 if argv[index] in VALUE_FLAGS else 1
    if index >= len(argv):
        return argv, "", []
    return argv[:index], argv[index], argv[index + 1 :]


def _overview(flags: list[str]) -> int:
    unknown = [flag for flag in flags if flag not in ("-h", "--help")]
    if unknown:
        raise UsageFailure(f"no verb given, only {' '.join(unknown)}")
    print("podctl controls Podplane: pods on plain Linux machines.\n")
    for title, verbs in VERBS.items():
        print(f"{title}:")
        for verb, summary in verbs.items():
            print(f"  {verb:<14} {summary}")
        print()
    print("Usage:\n  podctl VERB [flags]\n\nUse 'podctl VERB --help' for the flags and examples of a verb.")
    return 0


def _unknown(verb: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(verb, known_verbs(), n=3)
    hint = "\n\nDid you mean this?\n" + "".join(f"\t{name}\n" for name in near) if near else "\n"
    return f'unknown command "{verb}" for "podctl"{hint}\nIt has: {", ".join(known_verbs())}.'

"""podctl rollout: follows, restarts, lists, undoes, pauses and resumes the rollouts of deployments."""

from __future__ import annotations

import time
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from podctl.client import Client, Query, connect
from podctl.describe.pod import describe_template
from podctl.describe.writer import Writer
from podctl.durations import seconds_flag
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.resources import object_word, one_target
from podctl.tables import selector_text
from podctl.tabwriter import align
from podctl.watching import TimedOut, Watcher
from podplane.errors import NotFound
from podplane.kinds import DEPLOYMENT, REPLICA_SET

USAGE = "(status | restart | history | undo | pause | resume) deployment/NAME [flags]"
EXAMPLES = """
  podctl rollout status deployment/web --timeout=2m
  podctl rollout restart deployment/web
  podctl rollout history deployment/web
  podctl rollout undo deployment/web --to-revision=2
"""

_REVISION = "deployment.kubernetes.io/revision"
_CAUSE = "kubernetes.io/change-cause"
_RESTARTED = "kubectl.kubernetes.io/restartedAt"
_HASH = "pod-template-hash"


def configure(parser: Parser) -> None:
    parser.add_argument("action", choices=("status", "restart", "history", "undo", "pause", "resume"))
    parser.add_argument("what", metavar="deployment/NAME", nargs="+", help="one deployment")
    parser.switch("-w", "--watch", default=True, help="status: follow it to its end (true)")
    parser.add_argument("--timeout", metavar="DURATION", default="0s", help="status: give up after this (0: never)")
    parser.add_argument("--revision", metavar="N", type=int, default=0, help="history: show this one's pod template")
    parser.add_argument("--to-revision", metavar="N", type=int, default=0, help="undo: the revision (the one before)")


def run(args: Namespace) -> int:
    kind, name = one_target(args.what)
    if kind is not DEPLOYMENT:
        raise UsageFailure(f"{kind.plural} have no rollouts, only deployments have", "rollout")
    with connect(args) as client:
        if args.action == "status":
            return _status(args, client, name)
        if args.action == "history":
            return _history(args, client, name)
        if args.action == "undo":
            return _undo(args, client, name)
        return _edit(client, name, args.action)


def progress(deployment: Any) -> tuple[str, bool]:
    """(what to say, whether the rollout is complete), in kubectl's words. Failure where its deadline has passed."""
    name, spec, status = deployment.metadata.name, deployment.spec, deployment.status
    waiting = f'Waiting for deployment "{name}" rollout to finish: '
    if deployment.metadata.generation > status.observedGeneration:
        return "Waiting for deployment spec update to be observed...", False
    progressing = next((one for one in status.conditions if one.type == "Progressing"), None)
    if progressing is not None and progressing.reason == "ProgressDeadlineExceeded":
        raise Failure(f'error: deployment "{name}" exceeded its progress deadline')
    updated = status.updatedReplicas
    if updated < spec.replicas:
        return f"{waiting}{updated} out of {spec.replicas} new replicas have been updated...", False
    if status.replicas > updated:
        return f"{waiting}{status.replicas - updated} old replicas are pending termination...", False
    if status.availableReplicas < updated:
        return f"{waiting}{status.availableReplicas} of {updated} updated replicas are available...", False
    return f'deployment "{name}" successfully rolled out', True


def _status(args: Namespace, client: Client, name: str) -> int:
    seconds = seconds_flag("--timeout", args.timeout)
    deployment = client.get(DEPLOYMENT, client.namespace, name)
    words, done = progress(deployment)
    print(words, flush=True)
    if done or not args.watch:
        return 0
    query = Query(client.namespace, fields=f"metadata.name={name}")
    deadline = time.monotonic() + seconds if seconds > 0 else None
    revision = deployment.metadata.resourceVersion
    try:
        for change in Watcher(client, DEPLOYMENT, query, [deployment], revision, deadline).changes():
            if change.type == "DELETED":
                raise Failure("error: object has been deleted")
            before, (words, done) = words, progress(change.object)
            if words != before:
                print(words, flush=True)
            if done:
                break
    except TimedOut:
        raise Failure("error: timed out waiting for the condition") from None
    return 0


def _edit(client: Client, name: str, action: str) -> int:
    def edit(deployment: Any) -> bool:
        if action == "restart":
            if deployment.spec.paused:
                raise Failure(
                    f'error: deployments.apps "{name}" can\'t restart paused deployment (run rollout resume first)'
                )
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            deployment.spec.template.metadata.annotations[_RESTARTED] = now
            return True
        paused = action == "pause"
        if deployment.spec.paused == paused:
            raise Failure(f'error: deployments.apps "{name}" is {"already" if paused else "not"} paused')
        deployment.spec.paused = paused
        return True

    client.change(DEPLOYMENT, client.namespace, name, edit)
    word = {"restart": "restarted", "pause": "paused", "resume": "resumed"}[action]
    print(f"{object_word(DEPLOYMENT, name)} {word}")
    return 0


def _revisions(client: Client, name: str) -> dict[int, Any]:
    """The deployment's replica sets by revision, oldest first."""
    deployment = client.get(DEPLOYMENT, client.namespace, name)
    page = client.list(REPLICA_SET, Query(client.namespace, labels=_selector(deployment)))
    owned = [
        one
        for one in page.items
        if any(owner.controller and owner.uid == deployment.metadata.uid for owner in one.metadata.ownerReferences)
    ]
    numbered = {
        int(one.metadata.annotations[_REVISION]): one for one in owned if one.metadata.annotations.get(_REVISION)
    }
    return dict(sorted(numbered.items()))


def _selector(deployment: Any) -> str:
    text = selector_text(deployment.spec.selector)
    return "" if text == "<none>" else text


def _history(args: Namespace, client: Client, name: str) -> int:
    if args.revision:
        return _one_revision(client, name, args.revision)
    rows = ["REVISION\tCHANGE-CAUSE"]
    for revision, replica_set in _revisions(client, name).items():
        rows.append(f"{revision}\t{replica_set.metadata.annotations.get(_CAUSE) or '<none>'}")
    print(f"{object_word(DEPLOYMENT, name)} ")
    print(align("\n".join(rows)) + "\n")
    return 0


def _one_revision(client: Client, name: str, revision: int) -> int:
    revisions = _revisions(client, name)
    if revision not in revisions:
        raise NotFound(f"unable to find the specified revision {revision} in history")
    writer = Writer()
    describe_template(writer, revisions[revision].spec.template)
    print(f"{object_word(DEPLOYMENT, name)} with revision #{revision}")
    print(writer.text())
    return 0


def _undo(args: Namespace, client: Client, name: str) -> int:
    revisions = _revisions(client, name)
    newest = max(revisions, default=0)
    wanted = args.to_revision or max((number for number in revisions if number != newest), default=0)
    if wanted not in revisions:
        if not args.to_revision:
            raise Failure(f'error: no rollout history found for deployment "{name}"')
        raise NotFound(f"unable to find specified revision {wanted} in history")
    template = revisions[wanted].spec.template
    skipped = f"skipped rollback (current template already matches revision {wanted})"

    def edit(deployment: Any) -> bool:
        if deployment.spec.paused:
            raise Failure(
                f"error: you cannot rollback a paused deployment; resume it first with "
                f"'podctl rollout resume deployment/{name}' and try again"
            )
        before = deployment.spec.template.SerializeToString(deterministic=True)
        deployment.spec.template.CopyFrom(template)
        deployment.spec.template.metadata.labels.pop(_HASH, None)
        return bool(before != deployment.spec.template.SerializeToString(deterministic=True))

    _, changed = client.change(DEPLOYMENT, client.namespace, name, edit)
    print(f"{object_word(DEPLOYMENT, name)} {'rolled back' if changed else skipped}")
    return 0

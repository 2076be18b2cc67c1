"""A deployment's replica sets as its history: the newest, how a new one looks, which are too old. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.controllers import rollout
from controlplane.controllers.facts import copy_of, is_terminating, own
from controlplane.objects.applied import LAST_APPLIED
from podplane.v1 import apps_pb2, pod_pb2

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
_OWN = frozenset((LAST_APPLIED, REVISION, HISTORY, rollout.DESIRED, rollout.MAX, "deprecated.deployment.rollback.to"))
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: pod_pb2.PodTemplateSpec, collisions: int) -> str:
    """FNV-1a of the template's encoding, in Kubernetes' alphabet of safe characters.

    Only a name: sets are recognised by their template, so another encoding does not start a rollout.
    """
    number = 0x811C9DC5
    for byte in template.SerializeToString(deterministic=True) + (b"%d" % collisions if collisions else b""):
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(number))


def newest(deployment: apps_pb2.Deployment, sets: Sequence[apps_pb2.ReplicaSet]) -> apps_pb2.ReplicaSet | None:
    """The set of the deployment's present template; the oldest one where there are several."""
    wanted = _bare(deployment.spec.template)
    for each in sorted(sets, key=_age):
        if _bare(each.spec.template) == wanted:
            return each
    return None


def _bare(template: pod_pb2.PodTemplateSpec) -> pod_pb2.PodTemplateSpec:
    bare = copy_of(template)
    bare.metadata.labels.pop(HASH, None)
    if not bare.metadata.ListFields():
        bare.ClearField("metadata")
    return bare


def _age(each: apps_pb2.ReplicaSet) -> tuple[int, str]:
    return each.metadata.creationTimestamp.seconds, each.metadata.name


def revision(each: apps_pb2.ReplicaSet | apps_pb2.Deployment) -> int:
    """The number in its annotation; 0 where there is none."""
    text = each.metadata.annotations.get(REVISION, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def new_set(deployment: apps_pb2.Deployment, collisions: int, replicas: int, number: int) -> apps_pb2.ReplicaSet:
    """The replica set of the present template."""
    hashed = template_hash(deployment.spec.template, collisions)
    new = apps_pb2.ReplicaSet(apiVersion="apps/v1", kind="ReplicaSet")
    new.metadata.name = f"{deployment.metadata.name}-{hashed}"
    new.metadata.namespace = deployment.metadata.namespace
    own(new.metadata, deployment)
    new.spec.replicas = replicas
    if deployment.spec.HasField("minReadySeconds"):
        new.spec.minReadySeconds = deployment.spec.minReadySeconds
    new.spec.selector.CopyFrom(deployment.spec.selector)
    new.spec.selector.matchLabels[HASH] = hashed
    new.spec.template.CopyFrom(deployment.spec.template)
    new.spec.template.metadata.labels[HASH] = hashed
    new.metadata.labels.update(new.spec.template.metadata.labels)
    annotate(new, deployment, number)
    return new


def annotate(each: apps_pb2.ReplicaSet, deployment: apps_pb2.Deployment, number: int) -> bool:
    """Give the newest set the deployment's annotations and its revision; False where it has them."""
    wanted: Mapping[str, str] = {
        **{key: text for key, text in deployment.metadata.annotations.items() if key not in _OWN},
        **_scale_annotations(deployment),
        REVISION: str(number),
    }
    current = each.metadata.annotations
    changed = {key: text for key, text in wanted.items() if current.get(key) != text}
    if not changed:
        return False
    old = current.get(REVISION)
    if old and REVISION in changed:  # rolled back to: remember that it was another revision once
        current[HISTORY] = f"{current[HISTORY]},{old}" if current.get(HISTORY) else old
    current.update(changed)
    return True


def resize(each: apps_pb2.ReplicaSet, deployment: apps_pb2.Deployment, replicas: int) -> bool:
    """Set the size and note the deployment's own beside it; False where both are so already."""
    wanted = _scale_annotations(deployment)
    current = each.metadata.annotations
    if each.spec.replicas == replicas and all(current.get(key) == text for key, text in wanted.items()):
        return False
    each.spec.replicas = replicas
    current.update(wanted)
    return True


def _scale_annotations(deployment: apps_pb2.Deployment) -> dict[str, str]:
    limits = rollout.bounds(deployment)
    return {rollout.DESIRED: str(limits.replicas), rollout.MAX: str(limits.replicas + limits.surge)}


def expired(deployment: apps_pb2.Deployment, old: Sequence[apps_pb2.ReplicaSet]) -> list[apps_pb2.ReplicaSet]:
    """Empty old sets over revisionHistoryLimit (10 where it is unset), the oldest revisions first."""
    limit = deployment.spec.revisionHistoryLimit if deployment.spec.HasField("revisionHistoryLimit") else 10
    over = len(old) - limit
    return [each for each in sorted(old, key=revision)[: max(0, over)] if _is_empty(each)]


def _is_empty(each: apps_pb2.ReplicaSet) -> bool:
    settled = each.status.observedGeneration >= each.metadata.generation
    return settled and not each.status.replicas and not each.spec.replicas and not is_terminating(each)


def size_of(each: apps_pb2.ReplicaSet) -> rollout.Size:
    """The set as the arithmetic sees it."""
    notes = each.metadata.annotations
    return rollout.Size(
        name=each.metadata.name,
        replicas=each.spec.replicas,
        # The status may be of before a scaling down: pods over spec.replicas are as good as gone.
        available=min(each.status.availableReplicas, each.spec.replicas),
        created=each.metadata.creationTimestamp.seconds,
        desired=_number(notes.get(rollout.DESIRED)),
        max=_number(notes.get(rollout.MAX)),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None

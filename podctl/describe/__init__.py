"""How `podctl describe` shows each kind: pure text from an object, what belongs to it, and its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podctl.describe import others
from podctl.describe.node import describe_node
from podctl.describe.pod import describe_pod
from podctl.describe.writer import NONE, Writer
from podctl.tables import event_source, event_times
from podplane.duration import human


def describe(kind_name: str, obj: Any, related: Sequence[Any], events: Sequence[Any] | None, now: float) -> str:
    """The whole text. `related`: a deployment's replica sets, a replica set's or node's pods, a service's slices.

    `events` in the order of time; None leaves them out. `now` in Unix seconds.
    """
    writer = Writer()
    if kind_name == "Pod":
        describe_pod(writer, obj, now)
    elif kind_name == "Node":
        describe_node(writer, obj, related, now)
    elif kind_name in _RELATED:
        _RELATED[kind_name](writer, obj, related)
    else:
        _ALONE.get(kind_name, others.describe_any)(writer, obj)
    if events is not None:
        _events(writer, events, now)
    return writer.text()


_RELATED = {
    "Deployment": others.describe_deployment,
    "ReplicaSet": others.describe_replica_set,
    "Service": others.describe_service,
}
_ALONE = {
    "ConfigMap": others.describe_config_map,
    "Secret": others.describe_secret,
    "Namespace": others.describe_namespace,
}


def _events(writer: Writer, events: Sequence[Any], now: float) -> None:
    if not events:
        writer.field(0, "Events", NONE)
        return
    writer.line(0, "Events:")
    rows = []
    for event in events:
        first, last, count = event_times(event)
        when = human(now - last) + (f" (x{count} over {human(now - first)})" if count > 1 else "")
        rows.append([event.type, event.reason, when, event_source(event), event.message.strip().replace("\n", " ")])
    writer.table(1, ("Type", "Reason", "Age", "From", "Message"), rows)

"""Valid objects of every kind, ways to change one thing of them, and what admission then says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from controlplane.api.admission import Admission, AdmissionContext
from podplane.kinds import KINDS
from podplane.manifest.reading import from_tree

Tree = dict[str, Any]
Change = Callable[[Any], None]


def context(verb: str = "create", services: tuple[Any, ...] = ()) -> AdmissionContext:
    return AdmissionContext(verb, services=lambda: services, rng=random.Random(1))


def pod_spec() -> Tree:
    return {
        "containers": [{"name": "a", "image": "nginx:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "initContainers": [{"name": "i", "image": "busybox"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }


def workload(**spec: Any) -> Tree:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}
    return {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}


VALID: dict[str, Tree] = {
    "Pod": {"spec": pod_spec()},
    "Deployment": {"spec": workload()},
    "ReplicaSet": {"spec": workload()},
    "Service": {"spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080}]}},
    "ConfigMap": {"data": {"a.b": "1"}},
    "Secret": {"data": {"a": "aGk="}},
    "Namespace": {},
    "Node": {"spec": {"podCIDR": "10.244.1.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]}},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.244.1.2"]}], "ports": [{"port": 80}]},
    "Event": {"involvedObject": {"namespace": "default"}},
}


def made(kind: str, change: Change = lambda obj: None) -> Any:
    metadata = {"name": "web", **({"namespace": "default"} if KINDS[kind].namespaced else {})}
    obj = from_tree({"metadata": metadata, **VALID[kind]}, KINDS[kind].message)
    change(obj)
    Admission().mutate(obj, None, context())
    return obj


def wrong(kind: str, change: Change, services: tuple[Any, ...] = ()) -> list[str]:
    return [str(one) for one in Admission().validate(made(kind, change), None, context(services=services))]


def merge(**tree: Any) -> Change:
    """Set fields of the object as a manifest would; a list replaces the list."""

    def change(obj: Any) -> None:
        more = from_tree(tree, type(obj))
        _override(obj, more)

    return change


def _override(obj: Any, more: Any) -> None:
    for field, value in more.ListFields():
        if hasattr(value, "ListFields") and not field.is_repeated:
            target = getattr(obj, field.name)
            target.SetInParent()
            _override(target, value)
        else:
            obj.ClearField(field.name)
            if field.is_repeated:
                getattr(obj, field.name).MergeFrom(value)
            else:
                setattr(obj, field.name, value)


def container(**fields: Any) -> Change:
    return merge(spec={"containers": [{"name": "a", "image": "x", **fields}]})


def one_volume(**fields: Any) -> Change:
    return merge(spec={"volumes": [{"name": "v", **fields}]})


def template(**spec: Any) -> Change:
    return merge(spec={"template": {"spec": spec}})


def updated(kind: str, change: Change, before: Change = lambda obj: None) -> list[str]:
    old = made(kind, before)
    new = type(old)()
    new.CopyFrom(old)
    change(new)
    return [str(one) for one in Admission().validate(new, old, context("update"))]

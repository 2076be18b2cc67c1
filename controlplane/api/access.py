"""The one table that says, for every method that is served, who may call it (D13).

A method without a rule fails start-up; tests/controlplane/api/test_access.py walks the descriptors. The table
names the verb and resource; who holds which verb on which resource is controlplane/api/authz.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

ANYONE = "anyone"
"""Also without credentials."""
AUTHENTICATED = "authenticated"
"""Any person or node, but not a bootstrap token."""
BOOTSTRAP = "bootstrap"
"""A bootstrap token only."""
NODE = "node"
"""A node's certificate only."""
RESOURCE = "resource"
"""Whoever may use `verb` on `resource` in the request's namespace."""
EACH = "each"
"""Authenticated; the handler authorizes each message of the stream."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The access rule of one method. `verb` and `resource` (`pods`, `pods/log`) are set for RESOURCE and EACH."""

    who: str
    verb: str = ""
    resource: str = ""


_VERBS = {
    "Create": "create",
    "Get": "get",
    "List": "list",
    "Update": "update",
    "Apply": "patch",
    "Delete": "delete",
    "Watch": "watch",
}


def _kind(service: str) -> dict[str, Rule]:
    """The eight methods that every kind's service has; Apply also needs `create` where it creates."""
    resource = service.lower()
    rules = {f"/podplane.v1.{service}/{method}": Rule(RESOURCE, verb, resource) for method, verb in _VERBS.items()}
    rules[f"/podplane.v1.{service}/UpdateStatus"] = Rule(RESOURCE, "update", f"{resource}/status")
    return rules


ACCESS: Mapping[str, Rule] = MappingProxyType(
    {
        **_kind("Pods"),
        "/podplane.v1.Pods/Bind": Rule(RESOURCE, "create", "pods/binding"),
        "/podplane.v1.Pods/Evict": Rule(RESOURCE, "create", "pods/eviction"),
        "/podplane.v1.Pods/Logs": Rule(RESOURCE, "get", "pods/log"),
        "/podplane.v1.Pods/Exec": Rule(EACH, "create", "pods/exec"),
        "/podplane.v1.Pods/Attach": Rule(EACH, "create", "pods/attach"),
        "/podplane.v1.Pods/PortForward": Rule(EACH, "create", "pods/portforward"),
        **_kind("Nodes"),
        **_kind("Namespaces"),
        **_kind("Services"),
        **_kind("ConfigMaps"),
        **_kind("Secrets"),
        **_kind("Events"),
        **_kind("Deployments"),
        "/podplane.v1.Deployments/Scale": Rule(RESOURCE, "update", "deployments/scale"),
        **_kind("ReplicaSets"),
        "/podplane.v1.ReplicaSets/Scale": Rule(RESOURCE, "update", "replicasets/scale"),
        **_kind("EndpointSlices"),
        "/podplane.v1.Metrics/Pods": Rule(RESOURCE, "list", "pods/metrics"),
        "/podplane.v1.Metrics/Nodes": Rule(RESOURCE, "list", "nodes/metrics"),
        "/podplane.v1.Diagnosis/Service": Rule(RESOURCE, "get", "services/diagnosis"),
        "/podplane.v1.Batch/Write": Rule(EACH),
        "/podplane.v1.Cluster/Version": Rule(AUTHENTICATED),
        "/podplane.v1.Cluster/WhoAmI": Rule(AUTHENTICATED),
        "/podplane.v1.Cluster/Can": Rule(AUTHENTICATED),
        "/podplane.v1.Bootstrap/Join": Rule(BOOTSTRAP),
        "/podplane.v1.NodeSessions/Connect": Rule(NODE),
        "/podplane.v1.NodeSessions/Attach": Rule(NODE),
        "/podplane.v1.NodeSessions/Renew": Rule(NODE),
        "/grpc.health.v1.Health/Check": Rule(ANYONE),
        "/grpc.health.v1.Health/List": Rule(AUTHENTICATED),
        "/grpc.health.v1.Health/Watch": Rule(AUTHENTICATED),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(AUTHENTICATED),
    }
)


def rule_for(path: str) -> Rule:
    """The rule of `/package.Service/Method`; RuntimeError where the table has none: nothing is served unruled."""
    try:
        return ACCESS[path]
    except KeyError:
        raise RuntimeError(f"cannot serve {path}: it has no access rule in controlplane/api/access.py") from None

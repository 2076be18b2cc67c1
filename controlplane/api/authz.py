"""What a caller may do: roles of people, and the node rule that a node touches only itself and what it runs.

Decides only; credentials are authn.py's, the rule of each method is access.py's. Pure but for the facts about a
node's pods, which it asks of a `NodeFacts`. Fails with Forbidden in Kubernetes' words, the same whether the
object exists or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controlplane.api import access
from controlplane.api.authn import ANONYMOUS, JOINING, NOBODY, NODE_AGENT, PERSON, Identity
from podplane.errors import Forbidden, NotFound, Unauthenticated
from podplane.kinds import Kind, typed

READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete"})
_EDIT_READS_ONLY = frozenset({"events", "endpointslices"})
"""Written by the cluster itself; as in Kubernetes' edit role."""


class NodeFacts(Protocol):
    """What the rule for nodes needs to know about the store."""

    def runs(self, node: str, namespace: str, pod: str) -> bool:
        """True where the pod is bound to the node."""

    def uses(self, node: str, kind: str, namespace: str, name: str) -> bool:
        """True where a pod of the node refers to this ConfigMap or Secret."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt on a resource. Empty `namespace`: every one; `resource` may name a subresource, `pods/log`."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def kind(self) -> Kind:
        return typed(self.resource.partition("/")[0])


class Authorizer:
    """Answers whether an identity may do something."""

    def __init__(self, facts: NodeFacts) -> None:
        self._facts = facts

    def admit(self, rule: access.Rule, identity: Identity | None) -> Identity:
        """The first gate of every call, before the request is looked at."""
        if rule.who == access.ANYONE:
            return identity or ANONYMOUS
        if identity is None or identity.kind == NOBODY:
            raise Unauthenticated(
                "no credentials: send `authorization: Bearer TOKEN` "
                "(podctl does so from its context; `podplane-controlplane token` makes one)"
            )
        wanted = {access.BOOTSTRAP: JOINING, access.NODE: NODE_AGENT}.get(rule.who)
        if wanted is not None and identity.kind != wanted:
            raise Forbidden(f'User "{identity.username}" cannot call this method: it is for {_WHOM[wanted]} only')
        if wanted is None and identity.kind == JOINING:
            raise Forbidden("a bootstrap token may call Bootstrap.Join and nothing else")
        return identity

    def require(self, identity: Identity, attempt: Attempt) -> None:
        """Return where it is allowed, raise Forbidden where not."""
        if not self.allows(identity, attempt):
            raise Forbidden(forbidden(identity, attempt))

    def allows(self, identity: Identity, attempt: Attempt) -> bool:
        """True where `identity` may do it."""
        if identity.kind == NODE_AGENT:
            return self._node(identity.node, attempt)
        return identity.kind == PERSON and _PEOPLE.get(identity.role, _nothing)(attempt)

    def _node(self, node: str, attempt: Attempt) -> bool:
        verb, resource, name = attempt.verb, attempt.resource, attempt.name
        if resource in ("services", "endpointslices"):
            return verb in READ
        if resource == "events":
            return verb == "create"
        if resource in ("nodes", "nodes/status"):
            return name == node and (verb in ("get", "update") if resource == "nodes/status" else verb == "get")
        if resource in ("pods", "pods/status"):
            allowed = verb == "get" or (verb == "update" and resource == "pods/status")
            return allowed and self._facts.runs(node, attempt.namespace, name)
        if resource in ("configmaps", "secrets"):
            return verb == "get" and self._facts.uses(node, attempt.kind.name, attempt.namespace, name)
        return False


_WHOM = {JOINING: "bootstrap tokens", NODE_AGENT: "nodes"}


def _nothing(_attempt: Attempt) -> bool:
    return False


def _view(attempt: Attempt) -> bool:
    return attempt.verb in READ and attempt.kind.name != "Secret"


def _edit(attempt: Attempt) -> bool:
    if attempt.verb in READ:
        return True
    plural, _, subresource = attempt.resource.partition("/")
    writable = attempt.kind.namespaced and plural not in _EDIT_READS_ONLY
    return attempt.verb in WRITE and writable and subresource not in ("status", "binding")


def _admin(attempt: Attempt) -> bool:
    return attempt.verb in READ | WRITE


_PEOPLE = {"view": _view, "edit": _edit, "admin": _admin}


def forbidden(identity: Identity, attempt: Attempt) -> str:
    """Kubernetes' words: `pods is forbidden: User "bob" cannot create resource "pods" in API group "" in the ...`."""
    try:
        kind = attempt.kind
    except NotFound:
        return f'User "{identity.username}" cannot {attempt.verb} resource "{attempt.resource}"'
    subject = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    if attempt.name and attempt.verb not in ("create", "list", "watch"):
        subject += f' "{attempt.name}"'
    where = f'in the namespace "{attempt.namespace}"' if attempt.namespace else "at the cluster scope"
    return (
        f'{subject} is forbidden: User "{identity.username}" cannot {attempt.verb} resource "{attempt.resource}" '
        f'in API group "{kind.group}" {where}'
    )

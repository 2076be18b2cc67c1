"""Roles: who holds which verb on which resource, as in Kubernetes' view, edit and admin."""

from __future__ import annotations

import pytest

from controlplane.api.authn import NODE_AGENT, PERSON, Identity
from controlplane.api.authz import Attempt, Authorizer, forbidden
from controlplane.nodes.placement import Placement

AUTHORIZER = Authorizer(Placement())


def allows(role: str, what: str, namespace: str = "default") -> bool:
    verb, resource = what.split()
    return AUTHORIZER.allows(Identity(PERSON, "bob", role=role), Attempt(verb, resource, namespace))


@pytest.mark.parametrize(
    ("what", "least"),
    [
        ("get pods", "view"),
        ("get pods/log", "view"),
        ("watch nodes", "view"),
        ("list events", "view"),
        ("get secrets", "edit"),
        ("create secrets", "edit"),
        ("create pods", "edit"),
        ("create pods/exec", "edit"),
        ("create pods/eviction", "edit"),
        ("update deployments/scale", "edit"),
        ("delete services", "edit"),
        ("create endpointslices", "admin"),
        ("create events", "admin"),
        ("create pods/binding", "admin"),
        ("update pods/status", "admin"),
        ("update deployments/status", "admin"),
        ("create nodes", "admin"),
        ("delete namespaces", "admin"),
    ],
)
def test_a_role_may_do_what_it_and_the_lesser_ones_may(what: str, least: str) -> None:
    roles = ["view", "edit", "admin"]
    allowed = [role for role in roles if allows(role, what)]
    assert allowed == roles[roles.index(least) :]


@pytest.mark.parametrize("role", ["", "bootstrap", "root"])
def test_an_unknown_role_may_do_nothing(role: str) -> None:
    assert not allows(role, "get pods")


@pytest.mark.parametrize("verb", ["impersonate", "deletecollection", "*"])
def test_a_verb_that_is_not_served_is_nobodys(verb: str) -> None:
    assert not allows("admin", f"{verb} pods")


@pytest.mark.parametrize(
    ("attempt", "allowed"),
    [
        (Attempt("list", "services"), True),
        (Attempt("watch", "endpointslices"), True),
        (Attempt("create", "events", "default"), True),
        (Attempt("delete", "events", "default", "e"), False),
        (Attempt("get", "nodes", "", "node-1"), True),
        (Attempt("update", "nodes/status", "", "node-1"), True),
        (Attempt("update", "nodes", "", "node-1"), False),
        (Attempt("get", "nodes", "", "node-2"), False),
        (Attempt("list", "nodes"), False),
        (Attempt("list", "pods"), False),
        (Attempt("get", "configmaps", "default", "a"), False),
        (Attempt("get", "deployments", "default", "a"), False),
    ],
    ids=str,
)
def test_a_node_touches_only_itself_and_reads_services(attempt: Attempt, allowed: bool) -> None:
    node = Identity(NODE_AGENT, "system:node:node-1", node="node-1")
    assert AUTHORIZER.allows(node, attempt) is allowed


def test_a_refusal_names_subject_verb_resource_and_scope_as_kubernetes_does() -> None:
    bob = Identity(PERSON, "bob", role="view")
    assert forbidden(bob, Attempt("delete", "nodes", "", "n")) == (
        'nodes "n" is forbidden: User "bob" cannot delete resource "nodes" in API group "" at the cluster scope'
    )
    assert forbidden(bob, Attempt("update", "deployments/scale", "x", "d")) == (
        'deployments.apps "d" is forbidden: User "bob" cannot update resource "deployments/scale" '
        'in API group "apps" in the namespace "x"'
    )

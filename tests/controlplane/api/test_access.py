"""The gate: every method has a rule, and the rule is applied before anything else."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from controlplane.api.access import ACCESS, ANYONE, rule_for
from tests.controlplane.plane import METHODS, Client, Plane, status


def call(client: Client, path: str) -> Any:
    method = METHODS[path]
    request = GetMessageClass(method.input_type)()
    # Nothing is written to a stream: a write that meets the refusal half-way makes the client say INTERNAL.
    return client.call(path, None if method.client_streaming else request)


def test_every_method_of_the_protos_has_a_rule_and_every_rule_a_method() -> None:
    others = {path for path in ACCESS if not path.startswith("/podplane.v1.")}
    assert set(ACCESS) - others == set(METHODS)
    assert [path for path in ACCESS if ACCESS[path].who == ANYONE] == ["/grpc.health.v1.Health/Check"]


def test_a_method_without_a_rule_cannot_be_served() -> None:
    with pytest.raises(RuntimeError, match="no access rule"):
        rule_for("/podplane.v1.Pods/Teleport")


async def test_every_method_without_credentials_is_unauthenticated(plane: Plane) -> None:
    client = plane.anonymous()
    for path in METHODS:
        code, words = await status(call(client, path))
        assert code == "UNAUTHENTICATED", path
        assert "podplane-controlplane token" in words


async def test_every_method_with_an_unknown_token_is_unauthenticated(plane: Plane) -> None:
    client = plane.anonymous("0123456789abcdef.wrong")
    for path in METHODS:
        code, words = await status(call(client, path))
        assert (code, "unknown or has expired" in words) == ("UNAUTHENTICATED", True), path


async def test_a_bootstrap_token_may_call_join_and_nothing_else(plane: Plane) -> None:
    client = plane.joining()
    for path in METHODS:
        code, _ = await status(call(client, path))
        assert code == ("INVALID_ARGUMENT" if path.endswith("/Join") else "PERMISSION_DENIED"), path


async def test_a_viewer_is_told_who_may_not_do_what_where(plane: Plane) -> None:
    viewer = plane.person("view", "bob")
    pod = {"metadata": {"name": "web"}}
    assert await status(viewer.call("Pods/Create", _message("Pods/Create", pod))) == (
        "PERMISSION_DENIED",
        'pods is forbidden: User "bob" cannot create resource "pods" in API group "" in the namespace "default"',
    )
    assert await status(viewer.call("Deployments/Apply", _message("Deployments/Apply", pod))) == (
        "PERMISSION_DENIED",
        'deployments.apps "web" is forbidden: User "bob" cannot patch resource "deployments" '
        'in API group "apps" in the namespace "default"',
    )
    assert await status(viewer.call("Secrets/List", _message("Secrets/List", {}))) == (
        "PERMISSION_DENIED",
        'secrets is forbidden: User "bob" cannot list resource "secrets" in API group "" at the cluster scope',
    )
    listed = await viewer.call("Namespaces/List", _message("Namespaces/List", {}))
    assert "default" in [namespace.metadata.name for namespace in listed.items]


async def test_an_editor_writes_what_is_namespaced_and_no_nodes(plane: Plane) -> None:
    editor = plane.person("edit", "eve")
    made = await editor.call("ConfigMaps/Create", _message("ConfigMaps/Create", {"metadata": {"name": "a"}}))
    assert made.metadata.namespace == "default"
    for path in ("Nodes/Create", "Namespaces/Create", "Pods/UpdateStatus", "Pods/Bind", "EndpointSlices/Create"):
        code, words = await status(editor.call(path, _message(path, {})))
        assert (code, 'User "eve" cannot' in words) == ("PERMISSION_DENIED", True), path


@pytest.mark.parametrize("method", ["Exec", "Attach", "PortForward"])
async def test_streams_into_pods_are_refused_to_viewers_before_anything_is_said(plane: Plane, method: str) -> None:
    start = _message(f"Pods/{method}", {"start": {"name": "web"}})
    viewer, editor = plane.person("view"), plane.person("edit")
    assert (await status(viewer.call(f"Pods/{method}", iter([start]))))[0] == "PERMISSION_DENIED"
    assert await status(editor.call(f"Pods/{method}", iter([start]))) == ("NOT_FOUND", 'pods "web" not found')


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    [
        ("admin", "*", "*", True),
        ("edit", "*", "*", False),
        ("edit", "*", "deployments", True),
        ("edit", "get", "*", True),
        ("view", "get", "*", False),
        ("view", "*", "pods", False),
    ],
)
async def test_a_star_asks_about_every_verb_or_resource(
    plane: Plane, role: str, verb: str, resource: str, allowed: bool
) -> None:
    request = _message("Cluster/Can", {"verb": verb, "resource": resource, "namespace": "default"})
    answer = await plane.person(role).call("Cluster/Can", request)
    assert (answer.allowed, bool(answer.reason)) == (allowed, not allowed)


async def test_who_am_i_and_can_answer_for_the_caller(plane: Plane) -> None:
    viewer = plane.person("view", "bob")
    who = await viewer.call("Cluster/WhoAmI", _message("Cluster/WhoAmI", {}))
    assert (who.username, list(who.groups)) == ("bob", ["podplane:view", "system:authenticated"])
    for verb, resource, allowed in (("get", "pods", True), ("get", "pods/log", True), ("create", "po", False)):
        request = _message("Cluster/Can", {"verb": verb, "resource": resource, "namespace": "default"})
        answer = await viewer.call("Cluster/Can", request)
        assert (answer.allowed, bool(answer.reason)) == (allowed, not allowed), (verb, resource)


def _message(path: str, fields: dict[str, Any]) -> Any:
    return GetMessageClass(METHODS[f"/podplane.v1.{path}"].input_type)(**fields)

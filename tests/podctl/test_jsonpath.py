"""JSONPath templates with the results that kubectl gives."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.jsonpath import JSONPathError, find, render

POD: dict[str, Any] = {
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web"}},
    "spec": {
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y", "ports": [{"containerPort": 80}]}]
    },
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"}],
        "containerStatuses": [{"restartCount": 0}, {"restartCount": 4}],
    },
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.metadata.name}", "web"),
        ("{$.metadata.name}", "web"),
        ("{metadata.name}", "web"),
        ("name: {.metadata.name}\n", "name: web\n"),
        ("{.spec.containers[*].name}", "a b"),
        ("{.spec.containers[0].name}", "a"),
        ("{.spec.containers[-1].name}", "b"),
        ("{.spec.containers[0:1].name}", "a"),
        ("{.spec.containers[9].name}", ""),
        ("{.no.such.field}", ""),
        ('{.status.conditions[?(@.type=="Ready")].status}', "True"),
        ("{.status.conditions[?(@.type != 'Ready')].type}", "Initialized"),
        ("{.status.containerStatuses[?(@.restartCount>3)].restartCount}", "4"),
        ("{.spec.containers[?(@.ports)].name}", "b"),
        ("{.metadata.labels.app\\.kubernetes\\.io/name}", "web"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "web"),
        ("{..containerPort}", "80"),
        ("{.spec.containers[1].ports}", '[{"containerPort":80}]'),
        ('{range .spec.containers[*]}{.name}={.image}{"\\n"}{end}', "a=x\nb=y\n"),
        ("{range .spec.containers[*]}[{range .ports[*]}{.containerPort}{end}]{end}", "[][80]"),
    ],
)
def test_template_renders_as_in_kubectl(template: str, expected: str) -> None:
    assert render(template, POD) == expected


@pytest.mark.parametrize("template", ["{.a", "{range .a}", "{end}", "{.a[x]}", '{.a[?(@.b=="c)]}', "{.a[?(@.b==c)]}"])
def test_wrong_template_is_refused(template: str) -> None:
    with pytest.raises(JSONPathError):
        render(template, POD)


def test_find_takes_paths_with_and_without_braces() -> None:
    assert find(".metadata.name", POD) == find("{.metadata.name}", POD) == ["web"]

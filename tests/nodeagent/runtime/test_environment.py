"""Environment and expansion: scripts of what the kubelet does."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from nodeagent.runtime.environment import ConfigFailure, PodFacts, command_line, environment
from nodeagent.runtime.expansion import expand, missing
from podplane.v1.config_pb2 import ConfigMap, Secret
from podplane.v1.container_pb2 import Container
from podplane.v1.pod_pb2 import Pod
from podplane.v1.service_pb2 import Service

FACTS = PodFacts("node-1", "192.168.0.5", "10.1.0.7", {"cpu": "2", "memory": "4Gi"})
MAPS = {("default", "cm"): ConfigMap(data={"k": "v", "not valid": "x"})}
SECRETS = {("default", "sec"): Secret(data={"pw": b"hush"})}


def variables(container: dict[str, Any], services: list[Service] | None = None, **spec: Any) -> dict[str, str]:
    pod = Pod(spec=json_format.ParseDict(spec, Pod().spec))
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = "web", "default", "u-1"
    pod.metadata.labels["app"], pod.metadata.annotations["why"] = "shop", "because"
    made = json_format.ParseDict(container, Container())
    return dict(environment(pod, made, FACTS, MAPS, SECRETS, services or []))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"), ("$(A)$(B)", "12"), ("x$(A)y", "x1y"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$(NO)", "$(NO)"),
        ("$", "$"), ("$$", "$"), ("$A", "$A"), ("$(A", "$(A"), ("$($(A))", "$($(A))"), ("$()", "$()"), ("a$", "a$"),
        ("$(R)", "$(A)"), ("$(A)$", "1$"), ("\u00e9$(A)", "\u00e91"), ("$(A$(B)", "$(A$(B)"),
    ],
)  # fmt: skip
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2", "R": "$(A)"}) == expanded


def test_unknown_names_are_told() -> None:
    assert missing("$(A)/$(B)/$$(C)", {"A": "1"}) == ["B"]


def test_later_variables_refer_to_earlier_ones_and_win() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"},
           {"name": "k", "value": "own"}]  # fmt: skip
    made = variables({"envFrom": [{"configMapRef": {"name": "cm"}}], "env": env})
    assert made == {"k": "own", "A": "1", "B": "1$(C)", "C": "3"}


def test_env_from_with_prefix_drops_names_that_cannot_be() -> None:
    sources = [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}},
               {"configMapRef": {"name": "absent", "optional": True}}]  # fmt: skip
    assert variables({"envFrom": sources}) == {"P_k": "v", "pw": "hush"}


def test_fields_and_resources_of_the_pod() -> None:
    paths = {"metadata.name": "web", "metadata.namespace": "default", "metadata.uid": "u-1",
             "metadata.labels['app']": "shop", "metadata.annotations['why']": "because", "spec.nodeName": "node-1",
             "spec.serviceAccountName": "default", "status.hostIP": "192.168.0.5", "status.podIP": "10.1.0.7",
             "status.podIPs": "10.1.0.7"}  # fmt: skip
    env = [{"name": f"F{i}", "valueFrom": {"fieldRef": {"fieldPath": path}}} for i, path in enumerate(paths)]
    assert list(variables({"env": env}).values()) == list(paths.values())


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "", "1"), ("limits.cpu", "1m", "500"), ("requests.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "4096"), ("requests.memory", "1Mi", "64"), ("requests.memory", "1Gi", "1"),
    ],
)  # fmt: skip
def test_resources_are_rounded_up_in_their_divisor(resource: str, divisor: str, value: str) -> None:
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    container = {"name": "c", "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "250m", "memory": "64Mi"}},
                 "env": [{"name": "R", "valueFrom": {"resourceFieldRef": reference}}]}  # fmt: skip
    assert variables(container) == {"R": value}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "no"}}, "couldn't find key no in ConfigMap default/cm"),
        ({"secretKeyRef": {"name": "sec", "key": "no"}}, "couldn't find key no in Secret default/sec"),
    ],
)
def test_what_is_missing_is_named_unless_optional(source: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigFailure) as caught:
        variables({"env": [{"name": "A", "valueFrom": source}]})
    assert (caught.value.reason, str(caught.value)) == ("CreateContainerConfigError", message)
    kind, reference = next(iter(source.items()))
    optional = {kind: {**reference, "optional": True}}
    assert variables({"env": [{"name": "A", "valueFrom": optional}]}) == {}


def service(name: str, address: str, *ports: tuple[str, int], namespace: str = "default") -> Service:
    made = Service()
    made.metadata.name, made.metadata.namespace, made.spec.clusterIP = name, namespace, address
    for port, number in ports:
        made.spec.ports.add(name=port, port=number, protocol="TCP")
    return made


def test_services_become_variables() -> None:
    services = [service("my-db", "10.96.0.9", ("sql", 5432), ("metrics", 9187)), service("headless", "None", ("", 1)),
                service("far", "10.96.0.8", ("", 80), namespace="other")]  # fmt: skip
    made = variables({"env": [{"name": "URL", "value": "$(MY_DB_SERVICE_HOST)"}]}, services)
    assert made["URL"] == "10.96.0.9"
    assert made["MY_DB_SERVICE_PORT"] == made["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert made["MY_DB_PORT"] == "tcp://10.96.0.9:5432"
    assert made["MY_DB_PORT_9187_TCP_ADDR"] == "10.96.0.9"
    assert not [name for name in made if name.startswith(("HEADLESS", "FAR"))]
    kubernetes = service("kubernetes", "10.96.0.1", ("https", 443))
    unlinked = variables({}, [*services, kubernetes], enableServiceLinks=False)
    assert {name.split("_")[0] for name in unlinked} == {"KUBERNETES"}


def test_commands_are_expanded() -> None:
    assert command_line(["echo", "$(A)", "$$(A)"], [("A", "1")]) == ("echo", "1", "$(A)")

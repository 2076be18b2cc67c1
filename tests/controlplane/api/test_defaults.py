"""Defaults: what Kubernetes writes, once, and nothing more."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings

from controlplane.api.admission import Admission, AdmissionContext, AdmissionSettings
from controlplane.api.defaults import pull_policy
from podplane.kinds import KINDS
from podplane.manifest.printing import to_dict
from podplane.manifest.reading import from_tree
from podplane.merge import three_way
from tests.podplane.messages import messages

Tree = dict[str, Any]
SETTINGS = AdmissionSettings(toleration_seconds=15)


def context(verb: str = "create") -> AdmissionContext:
    return AdmissionContext(verb, settings=SETTINGS, rng=random.Random(1))


def defaulted(kind: str, tree: Tree) -> Tree:
    obj = from_tree({"metadata": {"name": "web", "namespace": "default"}, **tree}, KINDS[kind].message)
    Admission().mutate(obj, None, context())
    return to_dict(obj)


def test_a_pod() -> None:
    container = {
        "name": "a",
        "image": "nginx:1",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1"}},
    }
    pod = defaulted("Pod", {"spec": {"containers": [container], "volumes": [{"name": "v"}]}})
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 15}
    assert pod["status"] == {"phase": "Pending", "qosClass": "Burstable"}
    assert pod["spec"] == {
        "containers": [
            {
                "image": "nginx:1",
                "imagePullPolicy": "IfNotPresent",
                "name": "a",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", **lost},
            {"key": "node.kubernetes.io/unreachable", **lost},
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.20.0", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
        ("host", "IfNotPresent"),
        ("", "Always"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_a_best_effort_pod_stays_away_from_a_node_that_is_short_of_memory() -> None:
    pod = defaulted("Pod", {"spec": {"containers": [{"name": "a", "image": "nginx:1"}]}})
    assert "node.kubernetes.io/memory-pressure" not in [one["key"] for one in pod["spec"]["tolerations"]]


def test_a_pods_own_tolerations_win() -> None:
    pod = defaulted("Pod", {"spec": {"tolerations": [{"operator": "Exists"}]}})
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]


def test_probes_hooks_and_volumes() -> None:
    container = {
        "name": "a",
        "livenessProbe": {"httpGet": {"port": 80}},
        "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }
    volumes = [
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0}},
        {"name": "h", "hostPath": {"path": "/a"}},
    ]
    spec = defaulted("Pod", {"spec": {"containers": [container], "volumes": volumes}})["spec"]
    get = {"path": "/", "port": 80, "scheme": "HTTP"}
    assert spec["containers"][0]["livenessProbe"] == {
        "failureThreshold": 3, "httpGet": get, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1,
    }  # fmt: skip
    assert spec["containers"][0]["lifecycle"]["preStop"]["httpGet"] == get
    assert spec["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert list(spec["volumes"]) == [
        {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0}},
        {"name": "h", "hostPath": {"path": "/a", "type": ""}},
    ]


def test_a_deployment() -> None:
    spec = defaulted("Deployment", {"spec": {"template": {"spec": {}}}})["spec"]
    assert spec.pop("template")["spec"]["restartPolicy"] == "Always"
    assert spec == {
        "progressDeadlineSeconds": 600,
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
    }
    assert defaulted("Deployment", {"spec": {"replicas": 0}})["spec"]["replicas"] == 0


def test_a_secret_folds_what_is_written_as_text() -> None:
    secret = defaulted("Secret", {"data": {"a": "aGk=", "b": "aGk="}, "stringData": {"b": "new"}})
    assert (secret["data"], secret["type"], "stringData" in secret) == ({"a": "aGk=", "b": "bmV3"}, "Opaque", False)


def test_a_namespace_and_a_replica_set() -> None:
    namespace = defaulted("Namespace", {"metadata": {"name": "web"}})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "web"}
    assert (namespace["spec"], namespace["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    assert defaulted("ReplicaSet", {"spec": {}})["spec"] == {"replicas": 1}


def test_a_service() -> None:
    service = defaulted("Service", {"spec": {"ports": [{"port": 80}], "type": "NodePort"}})
    spec = service["spec"]
    (port,) = spec.pop("ports")
    assert 30000 <= port.pop("nodePort") <= 32767
    assert port == {"port": 80, "protocol": "TCP", "targetPort": 80}
    assert spec.pop("clusterIPs") == [spec.pop("clusterIP")]
    assert spec == {
        "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "type": "NodePort",
    }  # fmt: skip


def test_a_headless_service_gets_no_address() -> None:
    spec = defaulted("Service", {"spec": {"clusterIP": "None"}})["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])


def test_a_service_keeps_its_address_and_ports_and_loses_them_with_its_type() -> None:
    kind = KINDS["Service"].message
    admission = Admission()
    tree: Tree = {"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    old = from_tree(tree, kind)
    admission.mutate(old, None, context())
    again = from_tree(tree, kind)
    admission.mutate(again, old, context("update"))
    assert to_dict(again)["spec"] == to_dict(old)["spec"]
    plain: Any = from_tree({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP"}}, kind)
    plain.spec.ports.add().CopyFrom(old.spec.ports[0])  # type: ignore[attr-defined]
    admission.mutate(plain, old, context("update"))
    assert plain.spec.clusterIP == old.spec.clusterIP  # type: ignore[attr-defined]
    assert not plain.spec.ports[0].HasField("nodePort")
    assert not plain.spec.HasField("externalTrafficPolicy")


def test_a_local_load_balancer_gets_a_health_check_port_and_loses_it_with_its_policy() -> None:
    kind = KINDS["Service"].message
    admission = Admission()
    tree: Tree = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]},
    }
    old: Any = from_tree(tree, kind)
    admission.mutate(old, None, context())
    assert 30000 <= old.spec.healthCheckNodePort <= 32767
    assert 30000 <= old.spec.ports[0].nodePort <= 32767
    assert old.spec.healthCheckNodePort != old.spec.ports[0].nodePort
    assert old.spec.allocateLoadBalancerNodePorts
    assert admission.validate(old, None, context()) == []
    again: Any = from_tree(tree, kind)
    admission.mutate(again, old, context("update"))
    assert again.spec.healthCheckNodePort == old.spec.healthCheckNodePort
    changed: Any = kind()
    changed.CopyFrom(again)
    changed.spec.healthCheckNodePort = 32001
    assert [str(one) for one in admission.validate(changed, old, context("update"))] == [
        "spec.healthCheckNodePort: Invalid value: 32001: field is immutable"
    ]
    for name, value in (("externalTrafficPolicy", "Cluster"), ("type", "NodePort"), ("type", "ClusterIP")):
        other: Any = kind()
        other.CopyFrom(again)
        setattr(other.spec, name, value)
        if value == "ClusterIP":
            other.spec.ClearField("externalTrafficPolicy")
        admission.mutate(other, old, context("update"))
        assert not other.spec.healthCheckNodePort
        assert other.spec.allocateLoadBalancerNodePorts == (name != "type")
        assert bool(other.spec.ports[0].nodePort) == (value != "ClusterIP")
        assert admission.validate(other, old, context("update")) == []


def test_a_load_balancer_may_do_without_node_ports() -> None:
    spec = defaulted(
        "Service",
        {"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 80}]}},
    )["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert spec["externalTrafficPolicy"] == "Cluster"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_defaulting_twice_is_a_no_op_whatever_is_written(name: str) -> None:
    kind = KINDS[name].message
    admission = Admission()

    @settings(max_examples=40, deadline=None)
    @given(messages(kind, 4))
    def holds(obj: Any) -> None:
        admission.mutate(obj, None, context())
        again = kind()
        again.CopyFrom(obj)
        admission.mutate(again, None, context())
        assert again == obj
        admission.validate(obj, None, context())
        admission.validate(obj, obj, context("update"))

    holds()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_applying_a_manifest_again_changes_nothing(name: str) -> None:
    kind = KINDS[name].message
    admission = Admission()

    @settings(max_examples=40, deadline=None)
    @given(messages(kind, 4))
    def holds(manifest: Any) -> None:
        manifest.ClearField("metadata")
        live = kind()
        live.CopyFrom(manifest)
        admission.mutate(live, None, context())
        again = three_way(manifest, live, manifest)
        admission.mutate(again, live, context("update"))
        assert to_dict(again) == to_dict(live)

    holds()

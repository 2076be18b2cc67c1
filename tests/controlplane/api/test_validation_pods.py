"""Pods: every refusal names its field, in Kubernetes' words. Each case changes one thing of a valid pod."""

from __future__ import annotations

import pytest

from tests.controlplane.api.validating import (
    Change,
    container,
    merge,
    one_volume,
    wrong,
)

PODS: list[tuple[Change, str]] = [
    (lambda pod: pod.spec.ClearField("containers"), "spec.containers: Required value"),
    (container(name=""), "spec.containers[0].name: Required value"),
    (container(name="A_b"), 'spec.containers[0].name: Invalid value: "A_b": a lowercase RFC 1123 label'),
    (container(image=""), "spec.containers[0].image: Required value"),
    (container(image=" nginx"), 'spec.containers[0].image: Invalid value: " nginx": must not have leading or trailing'),
    (container(name="i"), 'spec.initContainers[0].name: Duplicate value: "i"'),
    (merge(spec={"containers": [{"name": "a", "image": "x"}] * 2}), 'spec.containers[1].name: Duplicate value: "a"'),
    (
        container(imagePullPolicy="Now"),
        'imagePullPolicy: Unsupported value: "Now": supported values: "Always", "IfNotPresent", "Never"',
    ),
    (
        container(ports=[{"containerPort": 70000}]),
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (container(ports=[{}]), "spec.containers[0].ports[0].containerPort: Required value"),
    (
        container(ports=[{"containerPort": 1, "name": "p"}, {"containerPort": 2, "name": "p"}]),
        'spec.containers[0].ports[1].name: Duplicate value: "p"',
    ),
    (container(ports=[{"containerPort": 1, "name": "Web"}]), "spec.containers[0].ports[0].name: Invalid value"),
    (
        container(env=[{"name": "1A"}]),
        'spec.containers[0].env[0].name: Invalid value: "1A": a valid environment variable name',
    ),
    (
        container(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        "may not be specified when `value` is not empty",
    ),
    (container(env=[{"name": "A", "valueFrom": {}}]), "spec.containers[0].env[0].valueFrom: Invalid value"),
    (
        container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
        "fieldRef.fieldPath: Unsupported value",
    ),
    (
        container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
        "valueFrom.secretKeyRef.key: Required value",
    ),
    (container(envFrom=[{}]), "spec.containers[0].envFrom[0]: Invalid value"),
    (
        container(volumeMounts=[{"name": "w", "mountPath": "/w"}]),
        'spec.containers[0].volumeMounts[0].name: Not found: "w"',
    ),
    (
        container(volumeMounts=[{"name": "v", "mountPath": "/w"}, {"name": "v", "mountPath": "/w/"}]),
        'volumeMounts[1].mountPath: Invalid value: "/w/": must be unique',
    ),
    (container(volumeMounts=[{"name": "v"}]), "spec.containers[0].volumeMounts[0].mountPath: Required value"),
    (
        container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        'spec.containers[0].resources.requests[cpu]: Invalid value: "2": must be less than or equal to cpu limit of 1',
    ),
    (
        container(resources={"limits": {"memory": "-1"}}),
        'resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0',
    ),
    (
        container(resources={"limits": {"hugepages-2Mi": "4Mi"}}),
        "resources.limits[hugepages-2Mi]: Forbidden: huge pages are not supported by this version",
    ),
    (
        container(resources={"requests": {"storage": "4Mi"}}),
        'resources.requests[storage]: Invalid value: "storage": must be a standard resource for containers',
    ),
    (
        container(resources={"requests": {"example.com/gpu": "1"}}),
        "requests[example.com/gpu]: Required value: Limit must be set for non overcommitable resources",
    ),
    (
        container(resources={"limits": {"ephemeral-storage": "1Gi"}, "requests": {"ephemeral-storage": "2Gi"}}),
        'Invalid value: "2Gi": must be less than or equal to ephemeral-storage limit of 1Gi',
    ),
    (
        container(resources={"limits": {"gpu": "1"}}),
        'resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers',
    ),
    (
        container(securityContext={"allowPrivilegeEscalation": False, "privileged": True}),
        "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    ),
    (
        container(securityContext={"seccompProfile": {"type": "Localhost"}}),
        "seccompProfile.localhostProfile: Required value",
    ),
    (
        container(restartPolicy="Always"),
        "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers",
    ),
    (container(livenessProbe={}), "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
    (
        container(livenessProbe={"tcpSocket": {"port": 0}}),
        "livenessProbe.tcpSocket.port: Invalid value: 0: must be between",
    ),
    (
        container(livenessProbe={"exec": {"command": ["a"]}, "successThreshold": 2}),
        "livenessProbe.successThreshold: Invalid value: 2: must be 1",
    ),
    (
        merge(spec={"initContainers": [{"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["a"]}}}]}),
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers",
    ),
    (
        one_volume(hostPath={"path": "data"}),
        'spec.volumes[0].hostPath.path: Invalid value: "data": must be an absolute path',
    ),
    (
        one_volume(hostPath={"path": "/a/../etc"}),
        "spec.volumes[0].hostPath.path: Invalid value: \"/a/../etc\": must not contain '..'",
    ),
    (one_volume(hostPath={}), "spec.volumes[0].hostPath.path: Required value"),
    (one_volume(hostPath={"path": "/a", "type": "Dir"}), 'spec.volumes[0].hostPath.type: Unsupported value: "Dir"'),
    (
        one_volume(hostPath={"path": "/a"}, emptyDir={}),
        "spec.volumes[0].emptyDir: Forbidden: may not specify more than 1 volume type",
    ),
    (one_volume(emptyDir={"medium": "Tape"}), 'spec.volumes[0].emptyDir.medium: Unsupported value: "Tape"'),
    (one_volume(secret={}), "spec.volumes[0].secret.secretName: Required value"),
    (
        one_volume(configMap={"name": "c", "defaultMode": 512}),
        "spec.volumes[0].configMap.defaultMode: Invalid value: 512",
    ),
    (
        one_volume(configMap={"name": "c", "items": [{"key": "k", "path": "../x"}]}),
        "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
    ),
    (
        one_volume(downwardAPI={"items": [{"path": "p", "fieldRef": {"fieldPath": "status.podIP"}}]}),
        'spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: "status.podIP"',
    ),
    (
        one_volume(downwardAPI={"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}),
        "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName: Required value",
    ),
    (
        container(env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1M"}}}]),
        'resourceFieldRef.divisor: Invalid value: "1M": only divisor\'s values 1m, 1 are supported with the cpu',
    ),
    (
        one_volume(
            projected={
                "sources": [
                    {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                ]
            }
        ),
        'spec.volumes[0].projected.sources[1].secret.items[0].path: Invalid value: "p": conflicting duplicate paths',
    ),
    (
        container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "a/../../b"}]),
        "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"a/../../b\": must not contain '..'",
    ),
    (
        container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPathExpr": "/$(A)"}]),
        'spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: "/$(A)": must be a relative path',
    ),
    (
        container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "a", "subPathExpr": "b"}]),
        "subPathExpr and subPath are mutually exclusive",
    ),
    (merge(spec={"securityContext": {"fsGroup": 4294967295}}), "spec.securityContext.fsGroup: Invalid value"),
    (merge(spec={"volumes": [{"name": "v"}, {"name": "v"}]}), 'spec.volumes[1].name: Duplicate value: "v"'),
    (
        merge(spec={"restartPolicy": "Sometimes"}),
        'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
    ),
    (merge(spec={"dnsPolicy": "None"}), "spec.dnsConfig.nameservers: Required value"),
    (merge(spec={"terminationGracePeriodSeconds": -1}), "spec.terminationGracePeriodSeconds: Invalid value: -1"),
    (merge(spec={"activeDeadlineSeconds": 0}), "spec.activeDeadlineSeconds: Invalid value: 0"),
    (merge(spec={"hostname": "a.b"}), "spec.hostname: Invalid value"),
    (merge(spec={"hostAliases": [{"ip": "300.0.0.1"}]}), "spec.hostAliases[0].ip: Invalid value"),
    (merge(spec={"nodeSelector": {"a": "b c"}}), 'spec.nodeSelector: Invalid value: "b c"'),
    (
        merge(spec={"tolerations": [{"key": "a", "operator": "Near"}]}),
        'spec.tolerations[0].operator: Unsupported value: "Near"',
    ),
    (merge(spec={"tolerations": [{"operator": "Equal"}]}), "spec.tolerations[0].operator: Invalid value"),
    (
        merge(spec={"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
        "spec.tolerations[0].effect: Invalid value",
    ),
    (
        merge(spec={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}}),
        "nodeSelectorTerms: Required value",
    ),
    (merge(metadata={"name": "Web"}), 'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain'),
    (merge(metadata={"labels": {"a b": "c"}}), 'metadata.labels: Invalid value: "a b": name part must consist'),
    (merge(metadata={"labels": {"a": "-"}}), 'metadata.labels: Invalid value: "-": a valid label must be'),
    (
        merge(metadata={"annotations": {"a": "x" * 262144}}),
        "metadata.annotations: Too long: may not be more than 262144 bytes",
    ),
]


PODS += [
    (one_volume(nfs={"path": "/x"}), "spec.volumes[0].nfs.server: Required value"),
    (one_volume(nfs={"server": "-o rw", "path": "/x"}), 'spec.volumes[0].nfs.server: Invalid value: "-o rw"'),
    (one_volume(nfs={"server": "a"}), "spec.volumes[0].nfs.path: Required value"),
    (one_volume(nfs={"server": "a", "path": "x"}), 'nfs.path: Invalid value: "x": must be an absolute path'),
]


@pytest.mark.parametrize(("change", "expected"), PODS, ids=[expected[:60] for _, expected in PODS])
def test_bad_pods(change: Change, expected: str) -> None:
    found = wrong("Pod", change)
    assert any(expected in one for one in found), found


VOLUMES: list[Change] = [
    one_volume(downwardAPI={"items": [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "one", "fieldRef": {"fieldPath": "metadata.annotations['a/b']"}, "mode": 0o400},
        {"path": "cpu", "resourceFieldRef": {"containerName": "a", "resource": "limits.cpu", "divisor": "1m"}}]}),
    one_volume(projected={"defaultMode": 0o440, "sources": [
        {"configMap": {"name": "c", "optional": True}}, {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}),
    one_volume(emptyDir={"medium": "Memory", "sizeLimit": "1Gi"}),
    one_volume(emptyDir={"sizeLimit": 0}),
    one_volume(nfs={"server": "2001:db8::1", "path": "/export", "readOnly": True}),
    one_volume(emptyDir={"sizeLimit": "1Gi"}),
    container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "..data/a"}]),
    container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPathExpr": "$(NAME)/a"}]),
    merge(spec={"securityContext": {"fsGroup": 0}}),
]  # fmt: skip


@pytest.mark.parametrize("change", VOLUMES)
def test_every_kind_of_volume_and_mount_is_taken(change: Change) -> None:
    assert wrong("Pod", change) == []

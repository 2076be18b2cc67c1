"""`describe` as kubectl writes it."""

from __future__ import annotations

from podctl.describe import describe
from podctl.describe.node import pod_amounts
from tests.podctl import objects

_POD = """\
Name:             web
Namespace:        default
Priority:         0
Service Account:  default
Node:             node-1/192.0.2.1
Start Time:       Tue, 14 Nov 2023 22:08:21 +0000
Labels:           app=web
                  tier=front
Annotations:      <none>
Status:           Running
IP:               10.244.1.5
IPs:
  IP:  10.244.1.5
Init Containers:
  prepare:
    Container ID:
    Image:         host
    Image ID:
    Port:          <none>
    Host Port:     <none>
    Command:
      true
    State:          Terminated
      Reason:       Completed
      Exit Code:    0
      Started:      Tue, 14 Nov 2023 22:08:22 +0000
      Finished:     Tue, 14 Nov 2023 22:08:24 +0000
    Ready:          True
    Restart Count:  0
    Environment:    <none>
    Mounts:         <none>
Containers:
  app:
    Container ID:
    Image:         host
    Image ID:
    Port:          8080/TCP
    Host Port:     0/TCP
    Command:
      sleep
      1000
    State:          Running
      Started:      Tue, 14 Nov 2023 22:13:11 +0000
    Last State:     Terminated
      Reason:       Error
      Exit Code:    1
      Started:      Tue, 14 Nov 2023 22:08:24 +0000
      Finished:     Tue, 14 Nov 2023 22:13:10 +0000
    Ready:          True
    Restart Count:  3
    Limits:
      cpu:     500m
      memory:  128Mi
    Requests:
      cpu:      250m
      memory:   64Mi
    Readiness:  http-get http://:8080/ready delay=0s timeout=1s period=10s #success=1 #failure=3
    Environment:
      COLOUR:    blue
      PASSWORD:  <set to the key 'password' of secret 'secrets'>  Optional: false
    Mounts:
      /data from data (rw)
Conditions:
  Type          Status
  PodScheduled  True
  Initialized   True
  Ready         True
Volumes:
  data:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     <none>
Events:
  Type     Reason   Age               From               Message
  ----     ------   ---               ----               -------
  Warning  BackOff  5s (x7 over 10m)  nodeagent, node-1  back-off 20s restarting failed container"""


def test_pod_is_described_with_containers_conditions_and_events() -> None:
    found = describe("Pod", objects.of(objects.POD), [], [objects.of(objects.EVENT)], objects.NOW)
    assert found.splitlines() == _POD.splitlines()


def test_node_shows_what_its_pods_request() -> None:
    text = describe("Node", objects.of(objects.NODE), [objects.of(objects.POD)], [], objects.NOW)
    rows = [line.split() for line in text.splitlines()]
    assert ["default", "web", "250m", "(12%)", "500m", "(25%)", "64Mi", "(3%)", "128Mi", "(6%)", "5m"] in rows
    assert "Taints:             gpu=a:NoSchedule\n" in text


def test_init_containers_count_where_they_need_more_than_the_apps() -> None:
    pod = objects.of(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {"
        "initContainers: [{name: side, restartPolicy: Always, resources: {requests: {cpu: 100m}}},"
        " {name: init, resources: {requests: {cpu: '1', memory: 1Gi}}}],"
        "containers: [{name: a, resources: {requests: {cpu: 200m, memory: 64Mi}}},"
        " {name: b, resources: {requests: {cpu: 300m}}}]}}"
    )
    assert pod_amounts(pod, "requests") == {"cpu": 1100, "memory": 1 << 30}


def test_secret_shows_sizes_only() -> None:
    secret = objects.of("{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {password: aHVudGVyMg==}}")
    text = describe("Secret", secret, [], [], objects.NOW)
    assert "password:  7 bytes" in text
    assert "hunter2" not in text
    assert "aHVudGVyMg" not in text


def test_service_lists_ready_endpoints_by_port() -> None:
    text = describe("Service", objects.of(objects.SERVICE), [objects.of(objects.SLICE)], [], objects.NOW)
    assert "Endpoints:         10.244.1.5:8080,10.244.1.6:8080,10.244.1.7:8080 + 1 more...\n" in text
    assert "TargetPort:        53/UDP\nEndpoints:         <none>\n" in text


def test_deployment_names_its_replica_sets_by_age() -> None:
    old, new = objects.of(objects.REPLICA_SET), objects.of(objects.REPLICA_SET)
    for revision, one in (("1", old), ("2", new)):
        one.metadata.name = f"web-{revision}"
        one.metadata.annotations["deployment.kubernetes.io/revision"] = revision
    text = describe("Deployment", objects.of(objects.DEPLOYMENT), [new, old], None, objects.NOW)
    assert "OldReplicaSets:  web-1 (3/3 replicas created)\nNewReplicaSet:   web-2 (3/3 replicas created)" in text
    assert "RollingUpdateStrategy:  1 max unavailable, 25% max surge\n" in text


def test_kind_without_a_form_of_its_own_is_shown_as_yaml() -> None:
    text = describe("EndpointSlice", objects.of(objects.SLICE), [], [], objects.NOW)
    assert "addressType: IPv4\n" in text
    assert text.endswith("Events:  <none>")

"""Objects that the tests of podctl show: read from manifests, as users write them."""

from __future__ import annotations

from typing import Any

from podplane.manifest.reading import read_documents

NOW = 1_700_000_000.0
"""2023-11-14T22:13:20Z, when every table of these tests is printed."""


def of(text: str) -> Any:
    """The one object of a manifest."""
    (document,) = read_documents(text, "test")
    return document.obj


POD = """
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  uid: u1
  creationTimestamp: "2023-11-14T22:08:20Z"
  labels: {app: web, tier: front}
spec:
  nodeName: node-1
  initContainers:
  - {name: prepare, image: host, command: ["true"]}
  containers:
  - name: app
    image: host
    command: [sleep, "1000"]
    ports: [{containerPort: 8080}]
    resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 500m, memory: 128Mi}}
    env:
    - {name: COLOUR, value: blue}
    - name: PASSWORD
      valueFrom: {secretKeyRef: {name: secrets, key: password}}
    readinessProbe: {httpGet: {path: /ready, port: 8080}}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {}}]
status:
  phase: Running
  podIP: 10.244.1.5
  podIPs: [{ip: 10.244.1.5}]
  hostIP: 192.0.2.1
  qosClass: Burstable
  startTime: "2023-11-14T22:08:21Z"
  conditions:
  - {type: PodScheduled, status: "True", lastTransitionTime: "2023-11-14T22:08:21Z"}
  - {type: Initialized, status: "True", lastTransitionTime: "2023-11-14T22:08:24Z"}
  - {type: Ready, status: "True", lastTransitionTime: "2023-11-14T22:13:12Z"}
  initContainerStatuses:
  - name: prepare
    image: host
    ready: true
    state:
      terminated:
        {exitCode: 0, reason: Completed, startedAt: "2023-11-14T22:08:22Z", finishedAt: "2023-11-14T22:08:24Z"}
  containerStatuses:
  - name: app
    image: host
    ready: true
    started: true
    restartCount: 3
    state: {running: {startedAt: "2023-11-14T22:13:11Z"}}
    lastState:
      terminated: {exitCode: 1, reason: Error, startedAt: "2023-11-14T22:08:24Z", finishedAt: "2023-11-14T22:13:10Z"}
"""

NODE = """
apiVersion: v1
kind: Node
metadata:
  name: node-1
  creationTimestamp: "2023-11-14T20:13:20Z"
  labels: {node-role.kubernetes.io/edge: "", node-role.kubernetes.io/control: ""}
spec: {unschedulable: true, podCIDR: 10.244.1.0/24, taints: [{key: gpu, value: a, effect: NoSchedule}]}
status:
  allocatable: {cpu: "2", memory: 2Gi}
  capacity: {cpu: "2", memory: 2Gi}
  addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: node-1}]
  conditions: [{type: Ready, status: "True", reason: AgentReady, message: the agent is ready}]
  nodeInfo: {kubeletVersion: v0.1.0, osImage: Debian 12, kernelVersion: "6.18", containerRuntimeVersion: "crun://1.8"}
"""

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, generation: 2, creationTimestamp: "2023-11-14T22:08:20Z"}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: "web:1"}, {name: log, image: "log:2"}]}
status:
  observedGeneration: 2
  replicas: 3
  updatedReplicas: 3
  readyReplicas: 2
  availableReplicas: 2
  unavailableReplicas: 1
  conditions: [{type: Available, status: "True", reason: MinimumReplicasAvailable}]
"""

REPLICA_SET = """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-abc, namespace: default, creationTimestamp: "2023-11-14T22:08:20Z"}
spec:
  replicas: 3
  selector: {matchExpressions: [{key: app, operator: In, values: [web, api]}, {key: old, operator: DoesNotExist}]}
  template: {spec: {containers: [{name: app, image: "web:1"}]}}
status: {replicas: 3, readyReplicas: 2}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, creationTimestamp: "2023-11-14T22:08:20Z"}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
"""

SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: default, creationTimestamp: "2023-11-14T22:08:20Z"}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.5]}, {addresses: [10.244.1.6]}, {addresses: [10.244.1.7]}, {addresses: [10.244.1.8]}]
"""

EVENT = """
apiVersion: v1
kind: Event
metadata: {name: web.1, namespace: default, creationTimestamp: "2023-11-14T22:03:20Z"}
involvedObject: {kind: Pod, name: web, namespace: default, uid: u1, fieldPath: "spec.containers{app}"}
type: Warning
reason: BackOff
message: "back-off 20s restarting failed container\\n"
source: {component: nodeagent, host: node-1}
firstTimestamp: "2023-11-14T22:03:20Z"
lastTimestamp: "2023-11-14T22:13:15Z"
count: 7
"""

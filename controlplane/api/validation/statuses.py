"""What a status may say, of every kind that has one, whoever writes it: people, controllers, nodes' agents. Pure.

Each function is given the object with its status as it would be, and the object as it is stored. Source: Kubernetes'
Validate*StatusUpdate; unlike there, phases, conditions, counts of restarts and where addresses may lead are judged as
well, since agents are believed no more than people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from controlplane.api.validation.addresses import address, is_address, usable
from controlplane.api.validation.containers import PROTOCOLS
from controlplane.api.validation.problems import Problems
from controlplane.api.validation.resources import quantities
from podplane import names
from podplane.errors import FieldError
from podplane.v1 import apps_pb2, namespace_pb2, node_pb2, pod_pb2, service_pb2

_TRUTHS = ("True", "False", "Unknown")
_PLAIN = re.compile("[A-Za-z]{1,63}").fullmatch
_POD_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_TERMINAL = frozenset(("Succeeded", "Failed"))
_QOS_CLASSES = ("Guaranteed", "Burstable", "BestEffort")
_NODE_PHASES = ("Pending", "Running", "Terminated")
_NODE_ADDRESSES = ("ExternalDNS", "ExternalIP", "Hostname", "InternalDNS", "InternalIP")
_MORE_THAN_REPLICAS = "cannot be greater than status.replicas"


def pod_status(new: pod_pb2.Pod, old: pod_pb2.Pod) -> list[FieldError]:
    """A pod's: where it is, how its containers are; one that has ended stays ended."""
    found, status = Problems(), new.status
    found.one_of("status.phase", status.phase, _POD_PHASES, required=False)
    if old.status.phase in _TERMINAL and status.phase != old.status.phase:
        words = f"a pod that has {old.status.phase} never changes its phase again"
        found.invalid("status.phase", status.phase, words)
    _conditions(status.conditions, found)
    found.one_of("status.qosClass", status.qosClass, _QOS_CLASSES, required=False)
    found.syntax("status.nominatedNodeName", status.nominatedNodeName, names.dns_subdomain, required=False)
    _pod_addresses(status, found)
    for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        _containers(getattr(status, name), f"status.{name}", found)
    return found


def service_status(new: service_pb2.Service, _old: service_pb2.Service) -> list[FieldError]:
    """A service's: where a load balancer takes its traffic, which leads every node's packets."""
    found, path = Problems(), "status.loadBalancer.ingress"
    _conditions(new.status.conditions, found)
    if new.spec.type != "LoadBalancer" and new.status.loadBalancer.ingress:
        found.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")
        return found
    for index, ingress in enumerate(new.status.loadBalancer.ingress):
        _ingress(ingress, f"{path}[{index}]", found)
    return found


def node_status(new: node_pb2.Node, _old: node_pb2.Node) -> list[FieldError]:
    """A node's: what it has, and where it is reached."""
    found, status = Problems(), new.status
    quantities(status.capacity, "status.capacity", found)
    quantities(status.allocatable, "status.allocatable", found)
    found.one_of("status.phase", status.phase, _NODE_PHASES, required=False)
    _conditions(status.conditions, found)
    seen: set[tuple[str, str]] = set()
    for index, item in enumerate(status.addresses):
        at, key = f"status.addresses[{index}]", (item.type, item.address)
        found.one_of(f"{at}.type", item.type, _NODE_ADDRESSES)
        if item.type.endswith("IP"):
            address(item.address, f"{at}.address", found)
        else:
            found.syntax(f"{at}.address", item.address, names.dns_subdomain)
        if key in seen:
            found.duplicate(at, item)
        seen.add(key)
    return found


def namespace_status(new: namespace_pb2.Namespace, _old: namespace_pb2.Namespace) -> list[FieldError]:
    """A namespace's: its phase says whether it is being deleted."""
    found, phase = Problems(), new.status.phase
    _conditions(new.status.conditions, found)
    if new.metadata.HasField("deletionTimestamp"):
        if phase != "Terminating":
            found.invalid("status.phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
    elif phase != "Active":
        found.invalid("status.phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")
    return found


def deployment_status(new: apps_pb2.Deployment, old: apps_pb2.Deployment) -> list[FieldError]:
    """A deployment's: counts that agree with each other."""
    found, status = Problems(), new.status
    _counts(status, ("updatedReplicas", "readyReplicas", "availableReplicas"), found)
    for name in ("unavailableReplicas", "collisionCount"):
        found.at_least(f"status.{name}", getattr(status, name))
    if status.collisionCount < old.status.collisionCount:
        found.invalid("status.collisionCount", status.collisionCount, "cannot be decremented")
    _conditions(status.conditions, found)
    return found


def replica_set_status(new: apps_pb2.ReplicaSet, _old: apps_pb2.ReplicaSet) -> list[FieldError]:
    """A replica set's: counts that agree with each other."""
    found = Problems()
    _counts(new.status, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"), found)
    _conditions(new.status.conditions, found)
    return found


def _conditions(conditions: Iterable[Any], found: Problems) -> None:
    """Pods' are written often: what is plainly right is given no closer look."""
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        type, status = condition.type, condition.status
        if status not in _TRUTHS or type in seen or not _PLAIN(type):
            at = f"status.conditions[{index}]"
            found.syntax(f"{at}.type", type, names.qualified_name)
            found.unique(f"{at}.type", type, seen)
            found.one_of(f"{at}.status", status, _TRUTHS)
        seen.add(type)


def _pod_addresses(status: pod_pb2.PodStatus, found: Problems) -> None:
    """The pod's own becomes an endpoint, of which one that may not be would hold up all others of a service."""
    if status.hostIP:
        address(status.hostIP, "status.hostIP", found)
    if status.podIP:
        usable(status.podIP, "status.podIP", found, "IPv4")
    for name, first, listed in (("hostIP", status.hostIP, status.hostIPs), ("podIP", status.podIP, status.podIPs)):
        if listed and (len(listed) > 1 or listed[0].ip != first):
            found.invalid(f"status.{name}s", [each.ip for each in listed], f"must be `{name}` and no more")


def _containers(statuses: Iterable[pod_pb2.ContainerStatus], path: str, found: Problems) -> None:
    seen: set[str] = set()
    for index, container in enumerate(statuses):
        at = f"{path}[{index}]"
        found.syntax(f"{at}.name", container.name, names.dns_label)
        found.unique(f"{at}.name", container.name, seen)
        found.at_least(f"{at}.restartCount", container.restartCount)
        for name, state in (("state", container.state), ("lastState", container.lastState)):
            if len(state.ListFields()) > 1:
                found.forbidden(f"{at}.{name}", "may not specify more than 1 of `waiting`, `running`, `terminated`")


def _ingress(ingress: service_pb2.LoadBalancerIngress, path: str, found: Problems) -> None:
    if ingress.ip:
        usable(ingress.ip, f"{path}.ip", found)
    elif ingress.ipMode:
        found.forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set")
    found.one_of(f"{path}.ipMode", ingress.ipMode, ("Proxy", "VIP"), required=False)
    found.syntax(f"{path}.hostname", ingress.hostname, names.dns_subdomain, required=False)
    if is_address(ingress.hostname):
        found.invalid(f"{path}.hostname", ingress.hostname, "must be a DNS name, not an IP address")
    for index, port in enumerate(ingress.ports):
        found.port(f"{path}.ports[{index}].port", port.port)
        found.one_of(f"{path}.ports[{index}].protocol", port.protocol, PROTOCOLS)


def _counts(status: Any, parts: Iterable[str], found: Problems) -> None:
    """`parts` of status.replicas."""
    for name in ("observedGeneration", "replicas"):
        found.at_least(f"status.{name}", getattr(status, name))
    for name in parts:
        number = getattr(status, name)
        found.at_least(f"status.{name}", number)
        if number > status.replicas:
            found.invalid(f"status.{name}", number, _MORE_THAN_REPLICAS)
    if status.availableReplicas > status.readyReplicas:
        found.invalid("status.availableReplicas", status.availableReplicas, "cannot be greater than readyReplicas")

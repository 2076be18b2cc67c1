"""Validators: plain functions that return everything that is wrong with an object, in Kubernetes' words. Pure.

One file for each subject; `supported.UNSUPPORTED` is the one table of what this version does not do yet.
"""

from controlplane.api.validation.cluster import endpoint_slice, event, namespace, node
from controlplane.api.validation.config import config_map, secret
from controlplane.api.validation.metadata import metadata
from controlplane.api.validation.pods import pod
from controlplane.api.validation.services import service
from controlplane.api.validation.statuses import (
    deployment_status,
    namespace_status,
    node_status,
    pod_status,
    replica_set_status,
    service_status,
)
from controlplane.api.validation.supported import supported
from controlplane.api.validation.workloads import deployment, replica_set

__all__ = [
    "config_map",
    "deployment",
    "deployment_status",
    "endpoint_slice",
    "event",
    "metadata",
    "namespace",
    "namespace_status",
    "node",
    "node_status",
    "pod",
    "pod_status",
    "replica_set",
    "replica_set_status",
    "secret",
    "service",
    "service_status",
    "supported",
]

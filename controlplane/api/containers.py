"""Which container of a pod a request means. Pure."""

from __future__ import annotations

from podplane.errors import Invalid
from podplane.v1 import pod_pb2

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def container_of(pod: pod_pb2.Pod, wanted: str) -> str:
    """The container that a request without a name means, as kubectl has it; errors name those there are."""
    specs = (*pod.spec.initContainers, *pod.spec.containers)
    everything = [container.name for container in specs]
    if wanted:
        if wanted not in everything:
            raise Invalid(f"container {wanted} is not valid for pod {pod.metadata.name}")
        return wanted
    if len(pod.spec.containers) == 1:
        return pod.spec.containers[0].name
    marked = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    if marked in everything:
        return marked
    raise Invalid(
        f"a container name must be specified for pod {pod.metadata.name}, choose one of: [{' '.join(everything)}]"
    )

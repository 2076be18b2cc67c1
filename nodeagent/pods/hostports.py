"""Which ports of this node lead to which pod: told to the proxy as soon as a pod has an address, and until it has none.

Owns the table. Never decides who may have a port (scheduler, admission.py) and makes no rule (nodeagent/proxy). Pods
with the node's network listen on its ports themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodeagent.pods.admission import ANY_ADDRESS
from nodeagent.pods.state import PodState
from nodeagent.proxy.services import Endpoint, HostPort


class HostPorts:
    """One for the node. `changed` is called with all of them whenever one comes, goes or leads elsewhere."""

    def __init__(self, changed: Callable[[Iterable[HostPort]], None] = lambda _all: None) -> None:
        self._changed = changed
        self._of: dict[str, tuple[HostPort, ...]] = {}

    def follow(self, state: PodState) -> None:
        """Take in what a pod has now."""
        ports = tuple(ports_of(state))
        if ports == self._of.get(state.uid, ()):
            return
        if ports:
            self._of[state.uid] = ports
        else:
            del self._of[state.uid]
        self._changed([port for each in self._of.values() for port in each])


def ports_of(state: PodState) -> Iterable[HostPort]:
    """The host ports of a pod that has an address of its own. Pure."""
    spec, address = state.pod.spec, state.address
    if spec.hostNetwork or not address:
        return
    for container in (*spec.initContainers, *spec.containers):
        for port in container.ports:
            if port.hostPort:
                yield HostPort(
                    pod=f"{state.pod.metadata.namespace}/{state.pod.metadata.name}",
                    protocol=(port.protocol or "TCP").lower(),
                    address="" if port.hostIP in ("", ANY_ADDRESS) else port.hostIP,
                    port=port.hostPort,
                    target=Endpoint(address, port.containerPort, True),
                )

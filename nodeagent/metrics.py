"""What the agent counts: `--metrics-address` shows it to Prometheus.

Owns the names of the metrics. Never decides and never fails: pods, session and outbox are asked when they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from podplane.metrics import Registry

PULL_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0)
START_SECONDS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0, 300.0)

DNS_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.5, 4.5)


class Metrics:
    """One for the whole agent."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.steps = self.registry.histogram(
            "podplane_agent_step_seconds", "Time that each step of a pod's start and stop took.", ("step",)
        )
        self.starts = self.registry.histogram(
            "podplane_agent_pod_start_seconds", "From a pod's admission to its being ready.", bounds=START_SECONDS
        )
        self.restarts = self.registry.counter("podplane_agent_container_restarts_total", "Containers started again.")
        self.probes = self.registry.counter(
            "podplane_agent_probe_results_total",
            "Probes by kind (startup, liveness, readiness) and result: successful or failed.",
            ("probe", "result"),
        )
        self.pulls = self.registry.counter(
            "podplane_agent_image_pulls_total", "Pulls by result: success, cancelled, or the status shown.", ("result",)
        )
        self.pull_seconds = self.registry.histogram(
            "podplane_agent_image_pull_seconds", "Time that pulls took which succeeded.", bounds=PULL_SECONDS
        )
        self.pull_bytes = self.registry.counter(
            "podplane_agent_image_pull_bytes_total", "Bytes of layers that were downloaded."
        )
        self.dns_queries = self.registry.counter(
            "podplane_agent_dns_queries_total",
            "Questions to the node's DNS server, by who knew the answer (cluster, cache, upstream, nobody).",
            ("source", "rcode"),
        )
        self.dns_upstream = self.registry.histogram(
            "podplane_agent_dns_upstream_seconds", "Time that questions to other DNS servers took.", bounds=DNS_SECONDS
        )
        self.images_removed = self.registry.counter(
            "podplane_agent_images_removed_total", "Images that were removed because the disk was full."
        )
        self.images_freed = self.registry.counter(
            "podplane_agent_images_freed_bytes_total", "Bytes of unpacked layers that were removed."
        )

    def describe(self, connected: Callable[[], bool], depth: Callable[[], int]) -> None:
        """Show the session's state and what waits to be sent."""
        self.registry.gauge("podplane_agent_session_open", "1 while the control plane is connected.", connected)
        self.registry.gauge("podplane_agent_outbox_frames", "Frames that wait to be sent.", depth)

    def describe_images(self, pulling: Callable[[], int]) -> None:
        """Show what is being pulled."""
        self.registry.gauge("podplane_agent_image_pulls", "Pulls in progress, or waiting to download.", pulling)

    def describe_pods(self, phases: Callable[[], Iterable[str]], waiting: Callable[[], int]) -> None:
        """Show how many pods are in each phase, and how many events their workers have yet to take in."""

        def count() -> dict[tuple[str, ...], float]:
            return {(phase,): number for phase, number in Counter(phases()).items()}

        self.registry.gauge("podplane_agent_pods", "Pods of this node by phase.", count, ("phase",))
        self.registry.gauge("podplane_agent_pod_events", "Events that pods' workers have not taken in yet.", waiting)

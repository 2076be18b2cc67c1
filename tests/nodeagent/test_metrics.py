"""What Prometheus reads of an agent."""

from __future__ import annotations

from nodeagent.metrics import Metrics


def test_pods_steps_session_and_outbox_are_shown() -> None:
    metrics = Metrics()
    metrics.describe(lambda: True, lambda: 3)
    metrics.describe_pods(lambda: ["Running", "Running", "Pending"], lambda: 2)
    metrics.restarts.add(by=2)
    metrics.starts.observe(0.07)
    metrics.steps.observe(0.004, "CreateSandbox")
    metrics.probes.add("liveness", "failed")
    lines = metrics.registry.text().splitlines()
    assert {
        'podplane_agent_pods{phase="Running"} 2',
        'podplane_agent_pods{phase="Pending"} 1',
        "podplane_agent_pod_events 2",
        "podplane_agent_session_open 1",
        "podplane_agent_outbox_frames 3",
        "podplane_agent_container_restarts_total 2",
        'podplane_agent_pod_start_seconds_bucket{le="0.1"} 1',
        'podplane_agent_step_seconds_count{step="CreateSandbox"} 1',
        'podplane_agent_probe_results_total{probe="liveness",result="failed"} 1',
    } <= set(lines)

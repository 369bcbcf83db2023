"""What the scaling policy tells the world: one log line and metrics for every decision that changes something."""

from __future__ import annotations

import json
import logging

from prometheus_client import CollectorRegistry

from autoscaling.scaling import Plan
from deployments.config.names import deployment_name
from observability.metrics import AutoscalerMetrics

log = logging.getLogger("ray.serve.headrace")


class PolicyReport:
    """Logs a decision whose explanation or nodes differ from the last, and counts all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics = AutoscalerMetrics(self.registry)
        self._last: dict[str, int | None] = {}

    def took(self, seconds: float) -> None:
        """One run of the policy."""
        self._metrics.decision_seconds.observe(seconds)

    def decided(self, plan: Plan) -> None:
        """A decision has come out."""
        changes = {reason.stage: "up" if reason.after > reason.before else "down" for reason in plan.reasons}
        for stage, number in plan.replicas.items():
            deployment = deployment_name(stage, plan.model)
            self._metrics.decisions_total.labels(deployment, changes.get(stage, "hold")).inc()
            self._metrics.target_replicas.labels(deployment).set(number)
        now: dict[str, int | None] = {**{str(stage): number for stage, number in plan.replicas.items()}, "nodes": plan.nodes}
        if now != self._last:
            self._last = now
            log.info("headrace scaling: %s", json.dumps(_line(plan), ensure_ascii=False))

    def sized(self, deployment: str, before: int, after: int) -> None:
        """A deployment that is no part of the plan has its number."""
        direction = "hold" if after == before else "up" if after > before else "down"
        self._metrics.decisions_total.labels(deployment, direction).inc()
        self._metrics.target_replicas.labels(deployment).set(after)
        if after != before:
            log.info("headrace scaling: %s", json.dumps({"deployment": deployment, "before": before, "after": after}))


def _line(plan: Plan) -> dict[str, object]:
    return {
        "model": plan.model,
        "explanation": plan.explanation(),
        "replicas": dict(plan.replicas),
        "nodes": plan.nodes,
        "panic": plan.panic,
        "brownout_level": plan.brownout_level,
        "sessions": round(plan.demand.now, 2),
        "sessions_ahead": round(plan.demand.replica_horizon, 2),
        "sessions_per_replica": round(plan.sessions_per_replica, 2),
        "prompts_per_s": round(plan.demand.prompts_per_s, 3),
    }

"""Waits for an application that starts, and says meanwhile what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model_core.errors import StageUnavailable

_ASK_EVERY_S = 0.1
# A wait is told again after so long, so that nobody thinks that nothing happens.
_AGAIN_AFTER_S = 15.0
_SHOWN = 300  # characters of an error

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """Replicas by Serve's name of their state, and the last line of what went wrong, if anything did."""

    replicas: Mapping[str, int]
    error: str = ""

    @property
    def ready(self) -> bool:
        return bool(self.replicas.get("RUNNING")) and set(self.replicas) == {"RUNNING"}


@dataclass(frozen=True, slots=True)
class AppState:
    """Of an application: Serve's name of its state, its message, and its deployments by name."""

    state: str
    message: str = ""
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)

    def awaited(self) -> str:
        """What the start still waits for, in words."""
        late = [f"{name} ({_counted(d.replicas)})" for name, d in self.deployments.items() if not d.ready]
        return ", ".join(late) if late else "the front door to find every stage healthy"


NOT_DEPLOYED = AppState("NOT_STARTED")


def app_state(overview: Any) -> AppState:
    """From Serve's `ApplicationStatusOverview`; None is an application that it does not know yet."""
    if overview is None:
        return NOT_DEPLOYED
    deployments = {
        name: DeploymentState({str(getattr(state, "value", state)): n for state, n in d.replica_states.items() if n}, _last_line(d.message))
        for name, d in overview.deployments.items()
    }
    return AppState(overview.status.value, overview.message.strip(), deployments)


class Progress:
    """Tells what the start waits for: when that changes, and again after a while. Each error of a deployment is told once."""

    def __init__(self, tell: Tell, clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._began = self._told_at = clock()
        self._last = ""
        self._errors: set[tuple[str, str]] = set()

    def seen(self, app: AppState) -> None:
        now = self._clock()
        for name, deployment in app.deployments.items():
            if deployment.error and not deployment.ready and (name, deployment.error) not in self._errors:
                self._errors.add((name, deployment.error))
                self._tell(f"{name}: {deployment.error}")
        awaited = "Serve to make the deployments" if not app.deployments else app.awaited()
        if awaited != self._last or now - self._told_at >= _AGAIN_AFTER_S:
            self._last, self._told_at = awaited, now
            self._tell(f"{now - self._began:.0f} s: waiting for {awaited}")


def wait_until_ready(
    look: Callable[[], AppState],
    serving: Callable[[], bool],
    within_s: float,
    tell: Tell,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when Serve calls the application running and `serving` says that callers are served.

    Raises:
        StageUnavailable: Serve gave up, or it took longer than `within_s`.
    """
    deadline = clock() + within_s
    progress = Progress(tell, clock)
    while True:
        app = look()
        if app.state == "DEPLOY_FAILED":
            reasons = [f"{name}: {d.error}" for name, d in app.deployments.items() if d.error]
            raise StageUnavailable(f"the application did not start: {'; '.join(reasons) or _last_line(app.message)}")
        if app.state == "RUNNING" and serving():
            return
        progress.seen(app)
        if clock() >= deadline:
            raise StageUnavailable(f"the application did not start within {within_s:g} s; still waiting for {app.awaited()}")
        sleep(_ASK_EVERY_S)


def _counted(replicas: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {state.lower()}" for state, n in replicas.items()) or "no replica"


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return lines[-1][:_SHOWN] if lines else ""

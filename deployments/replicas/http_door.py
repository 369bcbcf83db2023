"""The HTTP door of a front-door replica, where the configuration wants one."""

from __future__ import annotations

from collections.abc import Callable

from deployments.config.application import AppConfig
from doors.http.app import application
from doors.http.room import Services
from doors.http.server import HttpServer
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.doors import Door
from service.health import HealthMonitor


def http_doors(
    config: AppConfig, services: Services, monitor: HealthMonitor, metrics: Metrics, tracing: Tracing, new_id: Callable[[], str]
) -> list[Door]:
    """One door, or none. Raises RuntimeError from `start`: its address or its certificate cannot be had."""
    settings, clients = config.front_door.http, config.identity.certificates
    if settings.port is None:
        return []
    options = settings.options(services.intake.limits.stall_timeout_seconds, "" if clients is None else clients.ca_file)
    return [HttpServer(application(services, monitor, metrics, tracing, new_id, options), options)]

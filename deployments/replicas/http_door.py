"""The HTTP door of a front-door replica, where the configuration wants one."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from deployments.config.application import AppConfig
from doors.http.app import application
from doors.http.room import Services
from doors.http.server import HttpServer
from doors.http.webrtc.peers import WebRtc
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.doors import Door
from service.health import HealthMonitor

# Whoever has the address of a peer may end it.
_ID_BYTES = 24


def http_doors(
    config: AppConfig, services: Services, monitor: HealthMonitor, metrics: Metrics, tracing: Tracing, new_id: Callable[[], str]
) -> list[Door]:
    """One door, or none, and what connects peers that come by it.

    Raises RuntimeError from `start`: its address or its certificate cannot be had.
    """
    settings, clients = config.front_door.http, config.identity.certificates
    if settings.port is None:
        return []
    options = settings.options(services.intake.limits.stall_timeout_seconds, "" if clients is None else clients.ca_file)
    http = HttpServer(application(services, monitor, metrics, tracing, new_id, options), options)
    return [http] if services.webrtc is None else [services.webrtc, http]  # it is there before anybody asks for it


def web_rtc(config: AppConfig) -> WebRtc | None:
    """What connects peers, where the configuration wants any. Raises RuntimeError from `start`: its package is not there."""
    door = config.front_door
    return WebRtc(door.webrtc.options(door.http.host), partial(secrets.token_urlsafe, _ID_BYTES)) if door.webrtc.enabled else None

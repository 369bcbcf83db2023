"""All rooms of the HTTP door, and the edge around them. A new room is a folder beside this file, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from doors.http.bedrock.room import BedrockRoom
from doors.http.decart.room import DecartRoom
from doors.http.edge import HttpEdge
from doors.http.google.room import GoogleRoom
from doors.http.grpc_web.room import GrpcWebRoom
from doors.http.guard import Guards
from doors.http.links.room import LinksRoom
from doors.http.openai.room import OpenAiRoom
from doors.http.options import HttpOptions
from doors.http.own.room import OwnRoom
from doors.http.page.room import PageRoom
from doors.http.room import Room, Services
from doors.http.runway.room import RunwayRoom
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.health import HealthMonitor


def rooms(services: Services, monitor: HealthMonitor, new_id: Callable[[], str]) -> Sequence[Room]:
    """The first one also answers for paths that are like nobody's."""
    return [
        OwnRoom(services, monitor),
        PageRoom(),
        LinksRoom(services),
        GrpcWebRoom(services, new_id),
        OpenAiRoom(services),
        BedrockRoom(services),
        GoogleRoom(services),
        RunwayRoom(services),
        DecartRoom(services),
    ]


def application(
    services: Services, monitor: HealthMonitor, metrics: Metrics, tracing: Tracing, new_id: Callable[[], str], options: HttpOptions
) -> HttpEdge:
    """What the server runs."""
    guards = Guards(services.authority, metrics, tracing, new_id, options, services.denials, services.standings)
    return HttpEdge(rooms(services, monitor, new_id), guards)

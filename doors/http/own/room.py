"""Our own API over HTTP, made for curl and for pages: streams, sessions that are steered, models, jobs, and health for load balancers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from doors.http.own import models, openapi, words
from doors.http.own.batches import Batches
from doors.http.own.hls import Hls
from doors.http.own.jobs import Jobs
from doors.http.own.live import SUBPROTOCOL, Lives
from doors.http.own.replays import Replays
from doors.http.own.stream import Streams
from doors.http.own.tickets import Tickets
from doors.http.own.watch import Watches
from doors.http.own.webhooks import WebhookEndpoints
from doors.http.own.whep import Whep
from doors.http.own.whip import Whip
from doors.http.room import Credentials, Endpoint, Farewell, HttpRequest, Services, SocketEndpoint
from service.failures import Failure, Kind
from service.health import HealthMonitor

NAME = "own"


class OwnRoom:
    """See `doors.http.room.Room`.

    Args:
        services: what it works with.
        monitor: says whether the stages can serve.
    """

    name = NAME

    def __init__(self, services: Services, monitor: HealthMonitor) -> None:
        self._services = services
        self._monitor = monitor
        self._streams = Streams(services)
        self._replays = Replays(services, self._streams)
        self._lives = Lives(services)
        self._whep = Whep(services)
        self._whip = Whip(services)
        self._tickets = Tickets(services)
        self._watches = Watches(services)
        self._hls = Hls(services)
        self._jobs = Jobs(services)
        self._batches = Batches(services)
        self._webhooks = WebhookEndpoints(services)
        self._created = int(time.time())
        # Written once: what is served does not change while the process lives.
        self._models = JSONResponse(models.listed(services.intake, self._created))
        self._document = openapi.document(services.public_url)

    def endpoints(self) -> Sequence[Endpoint]:
        unguarded = Credentials.NONE
        return (
            Endpoint(path="/v1/stream", method="POST", operation="stream", handler=self._streams.stream),
            Endpoint(path="/v1/replays", method="POST", operation="replay", handler=self._replays.replay),
            Endpoint(path="/v1/watch/{token}", method="GET", operation="watch", handler=self._watches.watch),
            Endpoint(path="/v1/watch/{token}/hls/{name}", method="GET", operation="watch_hls", handler=self._hls.fetch),
            Endpoint(path="/v1/models", method="GET", operation="list_models", handler=self.list_models),
            Endpoint(path="/v1/models/{model}", method="GET", operation="get_model", handler=self.get_model),
            Endpoint(path="/v1/tickets", method="POST", operation="create_ticket", handler=self._tickets.create),
            *self._jobs.endpoints(),
            *self._batches.endpoints(),
            *self._webhooks.endpoints(),
            Endpoint(path="/v1/watch/{token}/whep", method="POST", operation="whep", handler=self._whep.watch),
            Endpoint(path="/v1/whep/{id}", method="PATCH", operation="whep_ice", handler=self._whep.patch),
            Endpoint(path="/v1/whep/{id}", method="DELETE", operation="whep_end", handler=self._whep.delete),
            Endpoint(path="/v1/whip", method="POST", operation="whip", handler=self._whip.publish),
            Endpoint(path="/v1/whip/{id}", method="PATCH", operation="whip_ice", handler=self._whip.patch),
            Endpoint(path="/v1/whip/{id}", method="DELETE", operation="whip_end", handler=self._whip.delete),
            Endpoint(path="/openapi.json", method="GET", operation="openapi", handler=self.openapi, credentials=unguarded),
            Endpoint(path="/healthz", method="GET", operation="healthz", handler=self.alive, credentials=unguarded),
            Endpoint(path="/readyz", method="GET", operation="readyz", handler=self.ready, credentials=unguarded),
        )

    def sockets(self) -> Sequence[SocketEndpoint]:
        spoken = (SUBPROTOCOL,)
        return (
            SocketEndpoint(path="/v1/live", operation="live", handler=self._lives.live, subprotocols=spoken),
            SocketEndpoint(path="/v1/watch/{token}", operation="watch", handler=self._watches.watch_socket, subprotocols=spoken),
        )

    def refuse(self, failure: Failure) -> Response:
        return words.refusal(failure)

    def farewell(self, failure: Failure) -> Farewell:
        return words.farewell(failure)

    async def list_models(self, request: HttpRequest) -> Response:
        return self._models

    async def get_model(self, request: HttpRequest) -> Response:
        intake, name = self._services.intake, request.raw.path_params["model"]
        config = intake.catalogue.find(name)
        if config is None:
            served = ", ".join(sorted(intake.catalogue.models))
            sentence = f"model must be one of {served}; got {name[:64]!a}"
            return words.refusal(Failure(kind=Kind.NOT_FOUND, message=sentence, request_id=request.request_id))
        return JSONResponse(models.described(config, intake, self._created))

    async def openapi(self, request: HttpRequest) -> Response:
        return JSONResponse(self._document)

    async def alive(self, request: HttpRequest) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: HttpRequest) -> Response:
        """Callers are served: every stage answers, and the server is not told to stop."""
        health = self._monitor.health
        stages = {name: {"serving": stage.serving, "present": stage.present} for name, stage in health.stages.items()}
        return JSONResponse({"ready": health.ready, "stages": stages}, 200 if health.ready else 503)

"""`POST /v1/stream`: a video that is sent while it is made."""

from __future__ import annotations

from functools import partial
from typing import get_args

from starlette.responses import Response

from doors.http.given import shown
from doors.http.own.bodies import Footage, asked
from doors.http.own.formats import CODECS, PlayingMp4, ReplacingJpegs, ServerSentEvents
from doors.http.own.schemas import StreamBody, StreamFormat
from doors.http.own.words import told
from doors.http.pushed import PushedResponse, Write
from doors.http.room import HttpRequest, Services
from model_core.types import Codec
from service.call import ReaderStalled
from service.checks import Problems
from service.events import Event, Send, Started
from service.failures import failure_of
from service.orders import Doorway, Mode, Order, VideoRequest

_FORMATS: tuple[StreamFormat, ...] = get_args(StreamFormat)
ACCEPTED: dict[str, StreamFormat] = {"text/event-stream": "sse", "multipart/x-mixed-replace": "mjpeg", "video/mp4": "mp4"}
STREAM_CODECS = {"mp4": Codec.FMP4_H264, "mjpeg": Codec.JPEG}
_DOORWAY = Doorway(Mode.STREAM)


class Streams:
    """The endpoint's handler.

    Args:
        services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def stream(self, request: HttpRequest) -> Response:
        problems = Problems()
        body, footage = await asked(request, StreamBody, problems)
        chosen = stream_format(request, body.format, problems)
        order = self._order(request, body, footage, chosen, problems)
        return self.answer(request, order, chosen)

    def _order(self, request: HttpRequest, body: StreamBody, footage: Footage, chosen: StreamFormat, problems: Problems) -> Order:
        intake, principal = self._services.intake, request.principal
        lead_s = body.max_lead_seconds
        if chosen == "mjpeg" and lead_s == 0:  # nobody sees it sooner
            lead_s = intake.limits.live_lead_seconds
        if principal.max_seconds is not None and body.seconds > principal.max_seconds:
            problems.add("seconds", f"must be at most {principal.max_seconds:g} with this credential; got {body.seconds:g}")
        video = VideoRequest(
            prompt=body.prompt, model=body.model, seconds=body.seconds, seed=body.seed, width=body.width, height=body.height,
            steps=body.steps, guidance=body.guidance, negative_prompt=body.negative_prompt, footage=footage,
            codec=STREAM_CODECS.get(chosen) or CODECS[body.codec], max_lead_seconds=lead_s, keys=tuple(body.keys),
            enhance=body.enhancement,
        )  # fmt: skip
        order = intake.order(video, _DOORWAY, problems)
        principal.check_model(order.config.name)
        return order

    def answer(self, request: HttpRequest, order: Order, chosen: StreamFormat) -> Response:
        """The session of `order`, in that format."""
        run = self._services.runner.run

        async def media(write: Write) -> None:
            form = PlayingMp4(write) if chosen == "mp4" else ReplacingJpegs(write)
            await run(order, partial(_introduced, response, form.send), request.call)

        async def events(write: Write) -> None:
            begun = False

            async def noticed(data: bytes) -> None:
                nonlocal begun
                begun = True
                await write(data)

            form = ServerSentEvents(noticed)
            try:
                await run(order, partial(_introduced, response, form.send), request.call)
            except Exception as error:
                if begun and not isinstance(error, ReaderStalled):
                    await form.fail(told(failure_of(error, request.request_id)))
                raise

        if chosen == "sse":
            response = PushedResponse(events, ServerSentEvents.media_type)
        else:
            response = PushedResponse(media, PlayingMp4.media_type if chosen == "mp4" else ReplacingJpegs.media_type)
        return response


async def _introduced(response: Response, send: Send, event: Event) -> None:
    """`send` the event. What started says of the session goes into headers, too, for callers that see nothing else."""
    if isinstance(event, Started):
        introduce(response, event)
        if event.watch_token:
            response.headers["x-headrace-watch-token"] = event.watch_token
    await send(event)


def introduce(response: Response, started: Started) -> None:
    """Say in headers what makes the video."""
    response.headers["x-headrace-model"] = started.model
    response.headers["x-headrace-seed"] = str(started.seed)
    response.headers["x-headrace-session"] = started.session_id


def stream_format(request: HttpRequest, in_body: StreamFormat | None, problems: Problems) -> StreamFormat:
    """What the query says, else the body, else the header Accept."""
    asked_for = request.raw.query_params.get("format") or in_body
    if asked_for is not None:
        for known in _FORMATS:
            if asked_for == known:
                return known
        problems.add("format", f"must be one of {', '.join(_FORMATS)}; got {shown(asked_for)}")
    accepted = [part.partition(";")[0].strip().lower() for part in request.raw.headers.get("accept", "").split(",")]
    return next((ACCEPTED[kind] for kind in accepted if kind in ACCEPTED), "mp4")

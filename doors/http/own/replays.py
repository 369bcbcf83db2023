"""`POST /v1/replays`: the last seconds of a session again, slowed down. It is answered as `POST /v1/stream` is."""

from __future__ import annotations

from starlette.responses import Response

from doors.http.own.formats import CODECS
from doors.http.own.schemas import ReplayBody, read
from doors.http.own.stream import STREAM_CODECS, Streams, stream_format
from doors.http.room import HttpRequest, Services
from service.checks import Problems
from service.orders import Doorway, Mode
from service.replay import ReplayRequest

_DOORWAY = Doorway(Mode.STREAM)


class Replays:
    """The endpoint's handler.

    Args:
        services: what it works with.
        streams: answers with the session.
    """

    def __init__(self, services: Services, streams: Streams) -> None:
        self._services = services
        self._streams = streams

    async def replay(self, request: HttpRequest) -> Response:
        problems, intake = Problems(), self._services.intake
        body = problems.passed(read(ReplayBody, await request.json(), problems))
        chosen = stream_format(request, body.format, problems)
        lead_s = body.max_lead_seconds
        if chosen == "mjpeg" and lead_s == 0:  # nobody sees it sooner
            lead_s = intake.limits.live_lead_seconds
        wanted = ReplayRequest(
            token=body.token, seconds=body.seconds, slow=body.slow, until_frame=body.until_frame,
            codec=STREAM_CODECS.get(chosen) or CODECS[body.codec], max_lead_seconds=lead_s,
        )  # fmt: skip
        order = await intake.replay(wanted, _DOORWAY, request.principal.tenant, problems)
        request.principal.check_model(order.config.name)
        return self._streams.answer(request, order, chosen)

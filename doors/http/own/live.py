"""`GET /v1/live`, a WebSocket: a session that is steered while it is watched.

Messages of text are JSON. The first one is `{"start": {…}}`, and each one after it is a control. Each event of the session is a message of
text, too; the frames of a chunk follow the event `frames` in one binary message. So do the frames of a source, which a caller sends.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from doors.http.given import shown
from doors.http.own.bodies import decoded
from doors.http.own.formats import CODECS, named
from doors.http.own.schemas import ActBody, Body, LiveBody, LiveResumeBody, NothingBody, PromptBody, ResumeBody, SourceFramesBody, read
from doors.http.room import Services, Socket
from model_core.errors import FieldViolation, InvalidRequest
from model_core.session import PromptApplied, StepsApplied
from service.checks import Problems
from service.controls import Act, ChangePrompt, Control, EndSource, GiveSource, Pause, Resume, Stop
from service.events import Ended, Event, Frames, Shown
from service.failures import BodyTooLarge
from service.intake import Intake
from service.orders import Doorway, Mode, Order, ResumeRequest, VideoRequest

SUBPROTOCOL = "headrace.v1"

_START = "start"
_PLAIN: dict[str, Control] = {"pause": Pause(), "resume": Resume(), "stop": Stop(), "source_end": EndSource()}
_SOURCE = "source_frames"
_CONTROLS = ("prompt", "act", *_PLAIN, _SOURCE)
_LEAD = "max_lead_seconds"

B = TypeVar("B", bound=Body)


class Lives:
    """The endpoint's handler.

    Args:
        services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def live(self, socket: Socket) -> None:
        intake = self._services.intake
        await socket.accept()
        # No name is kept for the message, which may be large: it would be held as long as the session runs.
        order = await started(await socket.first(_START, intake.limits.start_timeout_seconds), intake, socket.principal.tenant)
        source_bytes = intake.limits.max_source_bytes if order.request.strength is not None else 0
        controls = partial(next_control, socket, intake.limits.max_control_bytes, source_bytes)
        await self._services.runner.run(order, partial(tell, socket), socket.call, controls)


async def tell(socket: Socket, event: Event) -> None:
    """Send an event. See `service.events.Send`."""
    text, *data = messages(event)
    if isinstance(event, Ended):
        socket.ending()
    await socket.send(text, *data)


def messages(event: Event | Shown) -> tuple[str, *tuple[bytes, ...]]:
    """What is sent of an event: a message of text, and of frames a binary one."""
    name, fields = named(event)
    if not isinstance(event, Frames):
        return (_text(name, fields),)
    data = event.chunk.data
    return _text(name, {**fields, "sizes": [len(item) for item in data]}), data[0] if len(data) == 1 else b"".join(data)


async def started(message: Mapping[str, Any], intake: Intake, tenant: str) -> Order:
    """The order that the first message of a caller of `tenant` asks for.

    Raises:
        InvalidRequest: with everything that is wrong.
        SessionNotFound, SessionMismatch, StageUnavailable: as `Intake.resume`.
    """
    name, fields = _only_member(message)
    if name != _START:
        raise _problem(_START, f"must be the first message; got {_shown(name)}")
    if fields.get("resume") is not None:
        return await _resumed(fields, intake, tenant)
    problems = Problems()
    body = read(LiveBody, fields, problems, path=f"{_START}.")
    footage = await decoded(fields, problems, f"{_START}.")
    body = problems.passed(body)
    video = VideoRequest(
        prompt=body.prompt, model=body.model, seconds=body.seconds, seed=body.seed, width=body.width, height=body.height,
        steps=body.steps, guidance=body.guidance, negative_prompt=body.negative_prompt, footage=footage, codec=CODECS[body.codec],
        max_lead_seconds=body.max_lead_seconds, keys=tuple(body.keys), enhance=body.enhancement, strength=body.strength,
    )  # fmt: skip
    return intake.order(video, Doorway(Mode.LIVE, f"{_START}."), problems)


async def _resumed(fields: Mapping[str, Any], intake: Intake, tenant: str) -> Order:
    body = _checked(LiveResumeBody, fields, f"{_START}.")
    request = resume_request(body.resume, body.max_lead_seconds)
    return await intake.resume(request, Doorway(Mode.LIVE, f"{_START}.resume.", {_LEAD: f"{_START}.{_LEAD}"}), tenant)


def resume_request(body: ResumeBody, lead_s: float) -> ResumeRequest:
    return ResumeRequest(
        token=body.token,
        next_frame=body.next_frame,
        acknowledged=tuple(
            PromptApplied(told.prompt, told.first_frame, told.request_id, told.change, keys=tuple(told.keys)) for told in body.acknowledged
        ),
        quality_changes=tuple(StepsApplied(told.steps, told.first_frame) for told in body.quality_changes),
        max_lead_seconds=lead_s,
    )


async def next_control(socket: Socket, max_control_bytes: int, max_source_bytes: int = 0) -> Control:
    """See `service.controls.Controls`. A caller who sends no more is one who goes away.

    Args:
        socket: the caller's.
        max_control_bytes: of a message; `max_source_bytes` if that is more.
        max_source_bytes: of the frames of a source that come at once; 0 for a session that restyles none.
    """
    most = max(max_control_bytes, max_source_bytes)
    try:
        message = await socket.json(most)
        if _SOURCE in message and max_source_bytes:
            return source_frames(message, await socket.receive(most))
    except BodyTooLarge as error:
        why = "" if max_source_bytes else ", because it holds no image and no video"
        raise _problem("message", f"must have at most {most} bytes{why}; got {error.size}") from None
    return control(message)


def source_frames(message: Mapping[str, Any], data: str | bytes) -> GiveSource:
    """What `source_frames` in a message and the binary one after it say. Raises InvalidRequest."""
    name, fields = _only_member(message)
    body = _checked(SourceFramesBody, fields, f"{name}.")
    if isinstance(data, str):
        raise _problem("message", f"must be a binary one after {name}; got text")
    if (told := sum(body.sizes)) != len(data):
        raise _problem(f"{name}.sizes", f"must be as many bytes as the message after it has; got {told} for {len(data)}")
    ends = itertools.accumulate(body.sizes)
    items = tuple(data[end - size : end] for size, end in zip(body.sizes, ends, strict=True))
    return GiveSource(body.first_frame, CODECS[body.codec], items)


def control(message: Mapping[str, Any]) -> Control:
    """A later message. Raises InvalidRequest: it is no control."""
    name, fields = _only_member(message)
    if name == "prompt":
        body = _checked(PromptBody, fields, "prompt.")
        return ChangePrompt(body.prompt, body.request_id, body.replace_from)
    if name == "act":
        act = _checked(ActBody, fields, "act.")
        return Act(tuple(act.keys), act.request_id, act.replace_from)
    if name == _SOURCE:
        raise _problem(_SOURCE, f"must come only where {_START}.strength is set; got some")
    if name == _START:
        raise _problem(_START, "must be sent exactly once, as the first message; got a second one")
    if name not in _PLAIN:
        raise _problem("message", f"must hold one of {', '.join(_CONTROLS)}; got {_shown(name)}")
    _checked(NothingBody, fields, f"{name}.")
    return _PLAIN[name]


def _only_member(message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the object that a message holds. Raises InvalidRequest: it holds none, or more than one."""
    if len(message) != 1:
        names = ", ".join(_shown(name) for name in list(message)[:4]) or "none"
        raise _problem("message", f"must hold exactly one of {_START}, {', '.join(_CONTROLS)}; got {names}")
    [(name, fields)] = message.items()
    if not isinstance(fields, dict):
        raise _problem(_shown(name), f"must be an object; got {shown(fields)}")
    return name, fields


def _checked(kind: type[B], fields: Mapping[str, Any], path: str) -> B:
    problems = Problems()
    return problems.passed(read(kind, fields, problems, path=path))


def _problem(field: str, told: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, told),))


def _shown(name: str) -> str:
    return ascii(name[:64])[1:-1]


def _text(name: str, fields: Mapping[str, Any]) -> str:
    return json.dumps({"event": name, **fields}, separators=(",", ":"))

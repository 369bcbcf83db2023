"""The caller's half of a Live: start first, then prompt, pause, resume, stop, in any order, until it closes its side."""

from __future__ import annotations

import asyncio

from deployments.pacing import Clock
from deployments.rpc_edge import Context
from deployments.sessions import RunningSession
from deployments.validation import Limits, Validator
from deployments.wire import RequestParser
from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest


class LiveControls:
    """Reads one Live's messages. What it has read and the session has not answered is bounded; further messages wait in gRPC."""

    def __init__(self, context: Context, parser: RequestParser, validator: Validator, limits: Limits, clock: Clock) -> None:
        self._context = context
        self._parser = parser
        self._validator = validator
        self._limits = limits
        self._clock = clock

    async def first(self) -> pb.LiveRequest:
        """The opening message, not yet checked.

        Raises:
            InvalidRequest: it does not come, or is no message.
        """
        seconds = self._limits.start_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await self._read()
        except TimeoutError:
            raise InvalidRequest((FieldViolation("start", f"must be sent within {seconds:g} s of the call; got nothing"),)) from None
        if message is None:
            raise InvalidRequest((FieldViolation("start", "must be the first message; the call was closed without any"),))
        return message

    async def steer(self, running: RunningSession) -> None:
        """Apply controls until the caller stops or closes its side.

        Closing leaves a session that has an end to play to it. One that has none, or is paused with nobody left to resume it, ends.

        Raises:
            InvalidRequest: a message breaks a limit.
            StageUnavailable: a new prompt could not be embedded.
        """
        session = running.session
        while (message := await self._read()) is not None:
            arrived = self._clock.now()
            self._validator.control(message)
            action = message.WhichOneof("action")
            if action == "stop":
                running.stop_asked = True
                running.end(pb.END_REASON_STOPPED)
                return
            await running.unanswered.acquire()
            match action:
                case "prompt":
                    running.prompts_at.append(arrived)
                    replace_from = message.prompt.replace_from if message.prompt.HasField("replace_from") else None
                    await session.set_prompt(message.prompt.prompt, message.prompt.request_id, replace_from)
                case "pause":
                    session.pause()
                case "resume":
                    session.resume()
        if session.paused or session.request.num_frames is None:
            running.end(pb.END_REASON_STOPPED)

    async def _read(self) -> pb.LiveRequest | None:
        data: object = await self._context.read()
        return self._parser.parse(pb.LiveRequest, data) if isinstance(data, bytes) else None  # else: grpc.aio.EOF

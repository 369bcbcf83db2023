"""The caller's half of a Live: start first, then prompt, pause, resume, stop, in any order, until it closes its side."""

from __future__ import annotations

import asyncio

from deployments.pacing import Clock
from deployments.rpc_edge import Context
from deployments.running import RunningSession
from deployments.sessions import Refuse
from deployments.validation import Limits, Validator
from deployments.wire import RequestParser, prompt_refused
from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable


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

    async def steer(self, running: RunningSession, refuse: Refuse) -> None:
        """Apply controls until the caller stops or closes its side. A prompt that cannot be applied is refused, and changes nothing.

        Closing leaves a session that has an end to play to it. One that has none, or is paused with nobody left to resume it, ends.

        Raises:
            InvalidRequest: a message is none of the controls.
        """
        session = running.session
        while (message := await self._read()) is not None:
            arrived = self._clock.now()
            action = self._validator.control(message)
            if action == "stop":
                running.stop_asked = True
                running.end(pb.END_REASON_STOPPED)
                return
            await running.unanswered.acquire()
            match action:
                case "prompt":
                    await self._change_prompt(message.prompt, running, refuse, arrived)
                case "pause":
                    session.pause()
                case "resume":
                    session.resume()
        if session.paused or session.request.num_frames is None:
            running.end(pb.END_REASON_STOPPED)

    async def _change_prompt(self, change: pb.PromptChange, running: RunningSession, refuse: Refuse, arrived: float) -> None:
        running.prompts_at.append(arrived)
        try:
            self._validator.prompt(change)
            replace_from = change.replace_from if change.HasField("replace_from") else None
            await running.session.set_prompt(change.prompt, change.request_id, replace_from)
        except (InvalidRequest, StageUnavailable) as error:
            running.prompts_at.pop()
            running.unanswered.release()
            await refuse(prompt_refused(change.request_id, error))

    async def _read(self) -> pb.LiveRequest | None:
        data: object = await self._context.read()
        return self._parser.parse(pb.LiveRequest, data) if isinstance(data, bytes) else None  # else: grpc.aio.EOF

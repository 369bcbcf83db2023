"""The caller's half of a Live: start first, then prompt, pause, resume, stop, in any order, until it closes its side."""

from __future__ import annotations

from deployments.incoming import Incoming
from deployments.pacing import Clock
from deployments.running import RunningSession
from deployments.sessions import Refuse
from deployments.validation import Validator
from deployments.wire import prompt_refused
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest, StageUnavailable


class LiveControls:
    """Reads one Live's messages. What it has read and the session has not answered is bounded; further messages wait in gRPC."""

    def __init__(self, incoming: Incoming, validator: Validator, clock: Clock) -> None:
        self._incoming = incoming
        self._validator = validator
        self._clock = clock

    async def steer(self, running: RunningSession, refuse: Refuse) -> None:
        """Apply controls until the caller stops or closes its side. A prompt that cannot be applied is refused, and changes nothing.

        Closing leaves a session that has an end to play to it. One that has none, or is paused with nobody left to resume it, ends.

        Raises:
            InvalidRequest: a message is none of the controls.
        """
        session = running.session
        while (message := await self._incoming.next(pb.LiveRequest)) is not None:
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

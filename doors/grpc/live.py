"""The caller's half of a Live: start first, then prompt, pause, resume, stop, in any order, until it closes its side.

Prompts are embedded one after the other. Only further prompts wait for that: a pause, a resume or a stop overtakes them.
"""

from __future__ import annotations

import asyncio

from doors.grpc.incoming import Incoming
from doors.grpc.wire import prompt_refused
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest, StageUnavailable
from model_core.tasks import cancel_and_wait
from service.checks import Limits, Validator
from service.sessions.pacing import Allowance, Clock
from service.sessions.runner import Refuse
from service.sessions.running import RunningSession

# Prompts of one session: more than anybody types, and less of an encoder than others would miss.
_EMBEDDED_PER_S, _EMBEDDED_AT_ONCE = 4, 8


class LiveControls:
    """Reads one Live's messages. The number that is read and not yet answered is bounded; further messages wait in gRPC.

    They do not wait for the text encoder: where there is no more room, the oldest prompt that waits for it is refused. Prompts that come
    faster than one session may have embedded wait as well, and then only the newest is embedded; those that it overtook are refused.
    """

    def __init__(self, incoming: Incoming, validator: Validator, limits: Limits, clock: Clock) -> None:
        self._incoming = incoming
        self._limits = limits
        self._validator = validator
        self._clock = clock
        self._prompts: asyncio.Queue[tuple[pb.PromptChange, float]] = asyncio.Queue()
        self._embedded = Allowance(_EMBEDDED_AT_ONCE, _EMBEDDED_PER_S)

    async def steer(self, running: RunningSession, refuse: Refuse) -> None:
        """Apply controls until the caller stops or closes its side. A prompt that cannot be applied is refused, and changes nothing.

        Closing leaves the session to play to its end. One that has none plays on until the call is cancelled, for as long as a stream with
        an end may last. One that is paused, with nobody left to resume it, ends.

        Raises:
            InvalidRequest: a message is none of the controls, or larger than any of them.
        """
        session = running.session
        changing = asyncio.create_task(self._change_prompts(running, refuse))
        try:
            while (message := await self._incoming.next(pb.LiveRequest, upload=False)) is not None:
                arrived = self._clock.now()
                action = self._validator.control(message)
                if action == "stop":
                    running.stop_asked = True
                    running.end(pb.END_REASON_STOPPED)
                    return
                await self._room(running, refuse)
                match action:
                    case "prompt":
                        self._prompts.put_nowait((message.prompt, arrived))
                    case "pause":
                        session.pause()
                    case "resume":
                        session.resume()
            await self._prompts.join()
            if not session.paused:
                if session.request.num_frames is not None:
                    return
                await self._clock.sleep(self._limits.max_stream_seconds)
            running.end(pb.END_REASON_STOPPED)
        finally:
            await cancel_and_wait(changing)

    async def _room(self, running: RunningSession, refuse: Refuse) -> None:
        """Wait until one more control may be unanswered."""
        if running.unanswered.locked() and not self._prompts.empty():
            await self._refuse_oldest(
                running, refuse, "more controls came than may wait; this prompt was the oldest that waited for the text encoder"
            )
        await running.unanswered.acquire()

    async def _refuse_oldest(self, running: RunningSession, refuse: Refuse, why: str) -> None:
        """Of the prompts that wait for the text encoder."""
        change, _ = self._prompts.get_nowait()
        self._prompts.task_done()
        running.unanswered.release()
        await refuse(prompt_refused(change.request_id, StageUnavailable(why)))

    async def _change_prompts(self, running: RunningSession, refuse: Refuse) -> None:
        """One after the other, for ever. What nobody expects ends the session."""
        while True:
            if (wait_s := self._embedded.wait_s(self._clock.now())) > 0:
                await self._clock.sleep(wait_s)
                while self._prompts.qsize() > 1:
                    await self._refuse_oldest(
                        running, refuse, f"more than {_EMBEDDED_PER_S} prompts a second came; a newer one has taken this one's place"
                    )
            change, arrived = await self._prompts.get()
            self._embedded.take(1, self._clock.now())
            try:
                await self._change_prompt(change, running, refuse, arrived)
            except Exception as error:  # noqa: BLE001 - handed to whoever serves the session, who raises it
                running.fail(error)
                return
            finally:
                self._prompts.task_done()

    async def _change_prompt(self, change: pb.PromptChange, running: RunningSession, refuse: Refuse, arrived: float) -> None:
        running.prompts_at.append(arrived)
        try:
            self._validator.prompt(change)
            replace_from = change.replace_from if change.HasField("replace_from") else None
            try:
                await running.session.set_prompt(change.prompt, change.request_id, replace_from)
            except InvalidRequest as error:
                raise error.under("prompt.") from None
        except (InvalidRequest, StageUnavailable) as error:
            running.prompts_at.pop()
            running.unanswered.release()
            await refuse(prompt_refused(change.request_id, error))

"""Applies a caller's controls to a running session.

The text encoder embeds prompts one after the other. Only further prompts wait for that: a pause, a resume or a stop overtakes them.
Pictures of a source are decoded one after the other, too, and no other control waits for that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from model_core.session import Session
from model_core.tasks import cancel_and_wait
from service.checks import Limits, prompt_problem
from service.clock import Clock
from service.controls import Act, ChangePrompt, Controls, EndSource, GiveSource, Pause, Resume, Stop
from service.events import EndReason, PromptRefused, SourceDropped
from service.sessions.pacing import Allowance
from service.sessions.sourcing import Sourcing

# Prompts of one session: more than anybody types, and less of an encoder than others would miss.
_EMBEDDED_PER_S, _EMBEDDED_AT_ONCE = 4, 8

Refuse = Callable[[PromptRefused | SourceDropped], Awaitable[None]]


class Steered(Protocol):
    """The session that the controls change."""

    @property
    def session(self) -> Session: ...

    @property
    def sourcing(self) -> Sourcing | None:
        """Takes the source of a session that restyles one."""

    def end(self, reason: EndReason) -> None:
        """End in order before the next chunk."""

    def fail(self, error: Exception) -> None:
        """End with `error`."""

    def stop(self) -> None:
        """End because the caller said so. Nobody will resume the session."""


class Steering:
    """Reads and applies one session's controls. It reads no further ones while `limits.max_unanswered_controls` wait for their answer.

    Controls do not wait for the text encoder. When no more may wait, the oldest prompt that waits for the encoder is refused. When prompts
    come faster than one session may have them embedded, they wait too; then only the newest is embedded and the others are refused.
    """

    def __init__(self, controls: Controls, limits: Limits, clock: Clock) -> None:
        self._next = controls
        self._limits = limits
        self._clock = clock
        self._prompts: asyncio.Queue[tuple[ChangePrompt, float]] = asyncio.Queue()
        self._embedded = Allowance(_EMBEDDED_AT_ONCE, _EMBEDDED_PER_S)
        self._unanswered = asyncio.Semaphore(limits.max_unanswered_controls)
        self._arrivals: deque[float] = deque()  # of prompts and acts that are applied and not yet in force

    def answered(self) -> None:
        """The caller has the answer to a pause or a resume."""
        self._unanswered.release()

    def in_force(self) -> float:
        """The oldest prompt or act that was applied is in force from the next frame on. Returns when it arrived."""
        return self._arrivals.popleft()

    async def steer(self, steered: Steered, refuse: Refuse) -> None:
        """Apply controls until the caller stops or sends no more. A prompt that cannot be applied is refused and changes nothing.

        After the last control, a session with an end plays to its end, and one with a source to the end of that. One without plays on until
        the call is cancelled, but no longer than a stream with an end may last. A paused one ends, because nobody is left to resume it.

        Raises:
            InvalidRequest: from `Controls`; or the model takes no actions, or has no such key.
        """
        session, sourcing = steered.session, steered.sourcing
        helpers = [asyncio.create_task(self._change_prompts(steered, refuse))]
        if sourcing is not None:
            helpers.append(asyncio.create_task(_decode(sourcing, steered)))
        try:
            while (control := await self._next()) is not None:
                arrived = self._clock.now()
                if isinstance(control, Stop):
                    steered.stop()
                    return
                if isinstance(control, GiveSource | EndSource):
                    await _source(sourcing, control, refuse)
                    continue
                await self._room(refuse)
                self._apply(control, session, arrived)
            await self._play_on(steered)
        finally:
            await cancel_and_wait(*helpers)

    async def _play_on(self, steered: Steered) -> None:
        """What follows the last control."""
        session, sourcing = steered.session, steered.sourcing
        await self._prompts.join()
        if sourcing is not None:
            sourcing.end()
            await sourcing.decoded()
        if not session.paused:
            if session.request.num_frames is not None or sourcing is not None:
                return
            await self._clock.sleep(self._limits.max_stream_seconds)
        steered.end(EndReason.STOPPED)

    def _apply(self, control: ChangePrompt | Act | Pause | Resume, session: Session, arrived: float) -> None:
        """Raises InvalidRequest: the model has no such keys."""
        match control:
            case ChangePrompt():
                self._prompts.put_nowait((control, arrived))
            case Act():
                session.act(control.keys, control.request_id, control.replace_from)
                self._arrivals.append(arrived)
            case Pause():
                session.pause()
            case Resume():
                session.resume()

    async def _room(self, refuse: Refuse) -> None:
        """Wait until one more control may be unanswered."""
        if self._unanswered.locked() and not self._prompts.empty():
            await self._refuse_oldest(
                refuse, "more controls came than may wait; this prompt was the oldest that waited for the text encoder"
            )
        await self._unanswered.acquire()

    async def _refuse_oldest(self, refuse: Refuse, why: str) -> None:
        """Refuse the oldest prompt that waits for the text encoder."""
        change, _ = self._prompts.get_nowait()
        self._prompts.task_done()
        self._unanswered.release()
        await refuse(PromptRefused(change.request_id, StageUnavailable(why)))

    async def _change_prompts(self, steered: Steered, refuse: Refuse) -> None:
        """Embed prompts one after the other, without end. An unexpected error ends the session."""
        while True:
            if (wait_s := self._embedded.wait_s(self._clock.now())) > 0:
                await self._clock.sleep(wait_s)
                while self._prompts.qsize() > 1:
                    await self._refuse_oldest(
                        refuse, f"more than {_EMBEDDED_PER_S} prompts a second came; a newer one has taken this one's place"
                    )
            change, arrived = await self._prompts.get()
            self._embedded.take(1, self._clock.now())
            try:
                await self._change_prompt(change, steered.session, refuse, arrived)
            except Exception as error:  # noqa: BLE001 - the task that serves the session raises it
                steered.fail(error)
                return
            finally:
                self._prompts.task_done()

    async def _change_prompt(self, change: ChangePrompt, session: Session, refuse: Refuse, arrived: float) -> None:
        try:
            if (problem := prompt_problem(change.prompt, self._limits.max_prompt_bytes)) is not None:
                raise InvalidRequest((FieldViolation("prompt", problem),))
            await session.set_prompt(change.prompt, change.request_id, change.replace_from)
            self._arrivals.append(arrived)  # acts may have been applied meanwhile
        except (InvalidRequest, StageUnavailable) as error:
            self._unanswered.release()
            await refuse(PromptRefused(change.request_id, error))


async def _source(sourcing: Sourcing | None, control: GiveSource | EndSource, refuse: Refuse) -> None:
    """Raises InvalidRequest: the session restyles nothing, or the frames are too large."""
    if sourcing is None:
        raise InvalidRequest((FieldViolation("source_frames", "must come only where the session's strength is set; got some"),))
    if isinstance(control, EndSource):
        sourcing.end()
        return
    for dropped in await sourcing.take(control):
        await refuse(dropped)


async def _decode(sourcing: Sourcing, steered: Steered) -> None:
    """An error ends the session."""
    try:
        await sourcing.decode()
    except Exception as error:  # noqa: BLE001 - the task that serves the session raises it
        steered.fail(error)

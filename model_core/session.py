"""One viewer's session: its latent log, the leg that is open now, and the controls that steer it.

A session is driven as a sequence of *legs*. A leg is one open chain of streams with one prompt. Whatever ends a leg early (a new prompt, a
pause, a dead replica), the next leg is opened from the latent log: the chunk index and the last few clean latent chunks. There is no other
way to continue a session.

A leg that has begun to make its first chunk makes it: prompts and other changes that come meanwhile take effect behind that chunk, all at
once, however fast they come. A session's last chunk has nothing behind it, so it is begun again for a change, but not twice in a row.
Only a pause or a stop ends a leg at any time.

To begin a leg, and to make frames again, is work that the session was not admitted for. Its pace says how much of that it may have: changes
wait behind further chunks until a leg may be begun for them, and what was handed out is made again only where that is allowed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial

from model_core.acts import Keys, keys_held
from model_core.config import ModelConfig
from model_core.errors import ChunkFailed, StageUnavailable
from model_core.messages import Message
from model_core.pace import Pace
from model_core.reopen import ReopenPolicy
from model_core.request import SessionRequest, within_tokens
from model_core.session_log import SessionLog, SessionRecord
from model_core.source import SourceFeed
from model_core.stages.interface import Decoder, TextEncoder
from model_core.tasks import cancel_and_wait
from model_core.types import FrameChunk, Guidance, SessionContext, StageTiming, TextEmbedding, received


@dataclass(frozen=True, slots=True)
class PromptApplied(Message):
    """The prompt is in force, and `keys` are held, from `first_frame` on.

    Attributes:
        change: see `PromptEntry`.
        superseded: so many frames, from `first_frame` on, had been handed out for another prompt; they come again.
    """

    prompt: str
    first_frame: int
    request_id: int
    change: int = 0
    superseded: int = 0
    keys: Keys = ()


@dataclass(frozen=True, slots=True)
class StepsApplied:
    """Frames from `first_frame` on are made with `steps` denoise steps a chunk."""

    steps: int
    first_frame: int


@dataclass(frozen=True, slots=True)
class Paused(Message):
    next_frame: int


@dataclass(frozen=True, slots=True)
class Resumed(Message):
    next_frame: int


@dataclass(frozen=True, slots=True)
class MadeAgain:
    """A chunk of a restyled session that its viewer has seen already was made: there is room for more of the source."""

    chunk: int


ControlEvent = PromptApplied | StepsApplied | Paused | Resumed
SessionEvent = FrameChunk | MadeAgain | ControlEvent


class Session:
    """One viewer's stream: the latent log, and the leg that is open now. Frames before `seen_frames` are never handed out.

    A session that restyles makes a chunk when its `source` has it, and ends with the source.

    Pull `events()` once, from one task; call the controls from any task of the same loop. Each control but `stop` is
    answered by exactly one event, in order, unless the session ends first; a prompt is in order from when it is embedded. Only the last
    of several `set_steps` need be answered.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder: TextEncoder,
        decoder: Decoder,
        request: SessionRequest,
        log: SessionLog,
        reopen: ReopenPolicy,
        chance: Callable[[], float] = random.random,
        *,
        fingerprint: str,
        guidance: Guidance,
        seen_frames: int = 0,
        source: SourceFeed | None = None,
        enhancer: str = "",
    ) -> None:
        self.request = request
        self.source = source
        self._config, self._grid = config, config.grid
        self._fingerprint, self._enhancer = fingerprint, enhancer
        self._guidance = guidance
        self._seen_frames = seen_frames
        self._encoder, self._decoder = encoder, decoder
        self._reopen = reopen
        self._chance = chance
        self._log = log
        self._paused = self._stopped = False
        self._suspect_chunk: int | None = None  # of what is in the log now: with other contents it is a chunk like any other
        self._steps = log.last_steps
        self._making = False
        self._pace: Pace | None = None
        self._begins = False  # the next leg is begun for a control
        self._changes: deque[Callable[[], None]] = deque()
        self._unanswered: deque[ControlEvent] = deque()
        self._interrupt = asyncio.Event()

    @property
    def next_frame(self) -> int:
        """First frame that has not been handed out."""
        return max(self._grid.first_frame(self._log.next_chunk), self._seen_frames)

    @property
    def paused(self) -> bool:
        return self._paused

    def context(self, pace: Pace | None = None) -> SessionContext:
        """The log: all that any replica needs to go on from `next_frame`."""
        r = self.request
        due_s = None if pace is None else pace.due_s(self._grid.first_frame(self._log.next_chunk))
        suffix = self._log.suffix()
        decoded = None if r.num_frames is None else -(-r.num_frames // r.enhance.frames)
        return SessionContext(
            session_id=r.session_id, seed=r.seed, num_steps=self._log.steps, embedding=self._log.prompt,
            next_chunk=self._log.next_chunk, num_frames=decoded, suffix=suffix, sink=self._log.sink(len(suffix)),
            codec=r.codec, due_s=due_s, suspect_chunk=self._suspect_chunk, given=self._log.given, numerics=self._log.numerics,
            guidance=self._guidance, restyle=None if self.source is None else self.source.restyle, enhance=r.enhance, keys=self._log.keys,
        )  # fmt: skip

    @property
    def text_timings(self) -> tuple[StageTiming, ...]:
        """What the text stage took for what is held of it: prompts, the negative one too, and footage; empty if it does not say."""
        given, away = self._log.given, self._guidance.away
        made = (*self._log.embeddings, *(() if away is None else (away,)), *(() if given is None else (given,)))
        return tuple(each.timing for each in made if each.timing is not None)

    def record(self, tenant: str | None = None) -> SessionRecord:
        """The log, to be kept outside this process, for `VideoPipeline.restore`. `tenant`: see `SessionRecord`."""
        r = self.request
        first_chunk, latents, timeline, steps = self._log.tail()
        return SessionRecord(
            model=self._config.name, fingerprint=self._fingerprint, session_id=r.session_id, seed=r.seed, num_steps=r.num_steps,
            num_frames=r.num_frames, codec=r.codec, first_chunk=first_chunk, latents=latents, sink=self._log.sink(len(latents)),
            timeline=timeline, steps=steps, given=self._log.given, numerics=self._log.numerics, guidance=self._guidance.scale,
            negative_prompt=None if self._guidance.away is None else self._guidance.away.prompt, tenant=tenant,
            strength=None if self.source is None else self.source.strength, enhance=r.enhance, enhancer=self._enhancer,
        )  # fmt: skip

    async def set_prompt(self, prompt: str, request_id: int = 0, replace_from: int | None = None) -> None:
        """Steer: chunks not yet handed out are made anew for `prompt`. The old prompt plays on while the new one is embedded.

        With `replace_from`, so are chunks that have been handed out and begin with that frame or later, as far back as the log reaches,
        if the pace allows it. Otherwise a chunk of which the viewer saw a part before the session was restored keeps its prompt.

        Raises:
            StageUnavailable: the text encoder stayed away for the whole of the reopen policy.
            InvalidRequest: the model reads no prompt of that length.
        """
        embedding = await self._encoder.encode(prompt, self._log.numerics.text_encoder)
        self._change(partial(self._put, within_tokens(embedding, self._config, "prompt"), None, request_id, replace_from))

    def act(self, keys: Sequence[str], request_id: int = 0, replace_from: int | None = None) -> None:
        """Hold these keys and no others: as `set_prompt`, with the same prompt. Raises InvalidRequest: the model has no such keys."""
        self._change(partial(self._put, None, keys_held(keys, self._config.keys, "act.keys"), request_id, replace_from))

    def _put(self, embedding: TextEmbedding | None, keys: Keys | None, request_id: int, replace_from: int | None) -> None:
        chunk = self._next_unseen_chunk()
        if replace_from is not None and (self._pace is None or self._pace.may_replace()):
            first = max(self._log.first_rewindable, 0 if self.source is None else self.source.first_chunk)
            chunk = min(chunk, max(first, self._grid.chunk_from(replace_from)))
        first_frame = self._grid.first_frame(chunk)
        handed_out = self.next_frame if self.request.num_frames is None else min(self.next_frame, self.request.num_frames)
        superseded = max(0, handed_out - first_frame)
        if superseded and self._pace is not None:
            self._pace.replaced(first_frame, handed_out)
        entry = self._log.change_prompt(embedding, chunk, keys, supersedes=superseded > 0, request_id=request_id)
        self._seen_frames = min(self._seen_frames, first_frame)
        self._acquit(chunk)
        self._apply(PromptApplied(entry.prompt, first_frame, request_id, entry.change, superseded, entry.keys))

    @property
    def steps(self) -> int:
        """Denoise steps a chunk: those that were set last."""
        return self._steps

    def set_steps(self, steps: int) -> None:
        """Trade quality for speed: chunks not yet handed out are made anew with `steps`. Without a change there is no event either."""
        if steps != self._steps:
            self._steps = steps
            self._change(partial(self._put_steps, steps))

    def _put_steps(self, steps: int) -> None:
        chunk = self._next_unseen_chunk()
        self._log.change_steps(steps, chunk)
        self._acquit(chunk)
        self._unanswered = deque(control for control in self._unanswered if not isinstance(control, StepsApplied))
        self._apply(StepsApplied(steps, self._grid.first_frame(chunk)))

    def pause(self) -> None:
        """Close the leg and free its slot; the log stays."""
        self._settle(at_once=True)
        self._paused = True
        self._apply(Paused(self.next_frame))

    def resume(self) -> None:
        """Open a new leg where `pause` left off."""
        self._change(self._put_resumed)

    def _put_resumed(self) -> None:
        self._paused = False
        self._apply(Resumed(self.next_frame))

    def stop(self) -> None:
        """End `events()` before the next chunk."""
        self._stopped = True
        self._interrupt.set()

    async def events(self, pace: Pace | None = None) -> AsyncGenerator[SessionEvent, None]:
        """Frames and acknowledgements, in order, until the session's length is reached or `stop`. Closing it frees everything.

        Raises:
            StageUnavailable: a stage stayed away for the whole of the reopen policy.
            SessionBroken: a chunk cannot be made.
        """
        with nullcontext() if self.source is None else self.source.offered():
            async with aclosing(self._legs(pace)) as events:
                async for event in events:
                    yield event

    async def _legs(self, pace: Pace | None) -> AsyncGenerator[SessionEvent, None]:
        self._pace = pace
        failures = 0
        begun_again = False
        while not self._stopped and self._more():
            self._settle()
            self._interrupt.clear()
            while self._unanswered:
                yield self._answer(self._unanswered.popleft())
            if self._interrupt.is_set():
                continue
            if self._paused:
                await self._interrupt.wait()
                continue
            switch = self._log.next_switch
            try:
                async with aclosing(self._decoder.stream(self.context(pace))) as leg:
                    held = begun_again or not self._at_last()
                    begun_again = True
                    while (chunk := await self._next_or_interrupt(leg, pace if self._more() else None, held=held)) is not None:
                        failures, held, begun_again = 0, False, False
                        chunk = self._append(chunk)
                        self._settle()
                        if (unseen := self._unseen(chunk)) is not None:
                            yield unseen
                        if self._interrupt.is_set() or self._log.next_chunk == switch:
                            break
                self._check_not_cut_short(switch)
            except StageUnavailable as error:
                self._suspect_chunk = error.chunk if isinstance(error, ChunkFailed) else self._suspect_chunk
                self._settle()  # after that: a change that waited for the chunk acquits it
                failures += 1
                if failures >= self._reopen.attempts:
                    raise
                await self._rest(self._reopen.delay(failures, self._chance()))

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not through a control."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._interrupt.wait()

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change in order: at once, or when the leg's first chunk is made or will not be, and another leg may be begun."""
        self._changes.append(change)
        if not self._making:
            self._settle()

    def _settle(self, *, at_once: bool = False) -> None:
        self._making = False
        if at_once or self._paused or self._pace is None or self._pace.may_begin():
            while self._changes:
                self._changes.popleft()()

    def _acquit(self, chunk: int) -> None:
        """From `chunk` on chunks have other contents, so what came of them before says nothing."""
        self._suspect_chunk = None if self._suspect_chunk is None or chunk <= self._suspect_chunk else self._suspect_chunk

    def _apply(self, control: ControlEvent) -> None:
        self._begins = self._begins or isinstance(control, PromptApplied | Resumed)
        self._unanswered.append(control)
        self._interrupt.set()

    def _answer(self, control: ControlEvent) -> ControlEvent:
        """A pause at the frame where it takes effect: it may have come while an earlier chunk was still to be handed out.

        What is to be superseded by an acknowledgement that comes later has not been superseded yet.
        """
        match control:
            case PromptApplied() | StepsApplied():
                return control
            case Paused() | Resumed():
                later = sum(other.superseded for other in self._unanswered if isinstance(other, PromptApplied))
                return replace(control, next_frame=self.next_frame + later)

    def _next_unseen_chunk(self) -> int:
        """The first chunk of which the viewer has seen nothing."""
        return max(self._log.next_chunk, self._grid.chunk_from(self._seen_frames))

    def _more(self) -> bool:
        return self.request.num_frames is None or self.next_frame < self.request.num_frames

    def _at_last(self) -> bool:
        """The next chunk is the session's last one."""
        frames = self.request.num_frames
        return frames is not None and self._log.next_chunk + 1 >= self._grid.chunk_from(frames)

    def _check_not_cut_short(self, switch: int | None) -> None:
        if self.source is not None and (end := self.source.cut_to_end()) is not None:
            # If some frames are left, the next leg cuts the last chunk to them.
            frames = self.request.num_frames
            self.request = replace(self.request, num_frames=end if frames is None else min(end, frames))
        elif self._more() and not self._interrupt.is_set() and self._log.next_chunk != switch:
            raise StageUnavailable(f"the decode stage ended its stream before chunk {self._log.next_chunk}, with more to come")

    def _append(self, chunk: FrameChunk) -> FrameChunk:
        if chunk.index != self._log.next_chunk:
            raise RuntimeError(f"the decode stage sent chunk {chunk.index}, the session needs chunk {self._log.next_chunk}")
        chunk = replace(chunk, keys=self._log.keys)
        self._log.append(chunk.latents, chunk.numerics)
        if self.source is not None:
            self.source.made(self._log.next_chunk, self._log.first_rewindable)
        return chunk

    def _unseen(self, chunk: FrameChunk) -> FrameChunk | MadeAgain | None:
        """What of `chunk` the viewer has not seen. Of nothing it is said that it was made where a source has more room then."""
        seen = self._seen_frames - chunk.first_frame
        if seen <= 0:
            return chunk
        if seen >= chunk.num_frames:
            return None if self.source is None else MadeAgain(chunk.index)
        return replace(chunk, first_frame=self._seen_frames, num_frames=chunk.num_frames - seen, data=chunk.data[seen:])

    async def _next_or_interrupt(self, leg: AsyncGenerator[FrameChunk, None], pace: Pace | None, *, held: bool) -> FrameChunk | None:
        """The leg's next chunk, or None at its end or when a control came first.

        A chunk that loses the race is dropped: it was never handed out.

        Raises:
            StageUnavailable: from the leg, or because something within it was cancelled that was not cancelled from here.
        """
        pull = asyncio.create_task(self._pull(leg, pace, held=held))
        wake = asyncio.create_task(self._interrupt.wait())
        try:
            await asyncio.wait({pull, wake}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(pull, wake)
        interrupted = self._interrupt.is_set()
        if pull.cancelled():
            if interrupted:
                return None
            raise StageUnavailable("the stream of frames was cancelled from within")
        error = pull.exception()
        if interrupted and (error is None or isinstance(error, StageUnavailable)):
            return None
        return pull.result()

    async def _pull(self, leg: AsyncGenerator[FrameChunk, None], pace: Pace | None, *, held: bool) -> FrameChunk | None:
        if pace is not None:
            await pace.wait(self.next_frame)
            if self._begins:
                await pace.begin()
                self._begins = False
        self._making = held and not self._interrupt.is_set()
        asked_at = time.time()
        chunk = await anext(leg, None)
        return None if chunk is None else received(chunk, asked_at, time.time())

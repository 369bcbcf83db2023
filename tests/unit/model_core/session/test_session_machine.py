"""The life of sessions as a state machine: whatever happens, in whatever order, each viewer sees its undisturbed frames.

The reference is a viewer that knows the acknowledged timeline, and makes each chunk from it by itself, alone, one leg a chunk. Against it
runs the real pipeline on replicas that die and drain, through front doors that crash with messages still on their way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model_core.config import ModelConfig
from model_core.errors import EngineDead, StageDraining, StageUnavailable
from model_core.pipeline import Paused, PromptApplied, Resumed, Session, SessionEvent, SessionRequest, StepsApplied, VideoPipeline
from model_core.presets import millrace_64
from model_core.reconcile import Acknowledged, reconcile
from model_core.reopen import ReopenPolicy
from model_core.session_log import PromptEntry, SessionRecord
from model_core.stages.interface import Decoder, Denoiser, TextEncoder
from model_core.types import FrameChunk, LatentChunk, SessionContext
from tests.fakes import FakeDecoder, FakeDenoiser, FakeEncoder

T = TypeVar("T")
KEEP = 4
MAX_VIEWERS = 4
PROMPTS = st.sampled_from(["a red circle", "a blue square", "a green star"])
STEPS = st.integers(1, 4)
TURNS = st.integers(0, 60)  # of the event loop: from not yet begun to long done


class Replicas:
    """A denoiser whose every open stream ends when its replica dies or drains, and that fails the next few opens if told to."""

    def __init__(self, inner: Denoiser) -> None:
        self._inner = inner
        self._born = 0
        self._reason: type[StageUnavailable] = StageUnavailable
        self._dead_opens = 0
        self.open = 0

    def lose(self, reason: type[StageUnavailable], dead_opens: int) -> None:
        self._born += 1
        self._reason, self._dead_opens = reason, dead_opens

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        if self._dead_opens:
            self._dead_opens -= 1
            raise StageUnavailable("no replica")
        born = self._born
        self.open += 1
        try:
            async with aclosing(self._inner.stream(context)) as chunks:
                async for chunk in chunks:
                    if self._born != born:
                        raise self._reason("the replica has gone")
                    yield chunk
        finally:
            self.open -= 1


class Reference:
    """Chunks of a session nobody disturbs: each from its own leg, its story being the prompt and steps of every chunk up to it."""

    def __init__(self, encoder: TextEncoder, decoder: Decoder, window: int) -> None:
        self._encoder, self._decoder, self._window = encoder, decoder, window
        self._made: dict[tuple[int, tuple[tuple[str, int], ...]], FrameChunk] = {}

    async def chunk(self, seed: int, story: tuple[tuple[str, int], ...]) -> FrameChunk:
        if (seed, story) not in self._made:
            ends = range(max(1, len(story) - self._window), len(story))
            suffix = [(await self.chunk(seed, story[:end])).latents for end in ends]
            prompt, steps = story[-1]
            context = SessionContext("reference", seed, steps, await self._encoder.encode(prompt), len(story) - 1, None, tuple(suffix))
            async with aclosing(self._decoder.stream(context)) as leg:
                self._made[seed, story] = await anext(leg)
        return self._made[seed, story]


@dataclass(frozen=True, slots=True)
class Asked:
    """A control of the viewer that waits for its answer."""

    kind: type[PromptApplied | Paused | Resumed]
    prompt: str = ""
    request_id: int = 0
    replace_from: int | None = None
    reach: int = 0  # the first frame that could be superseded


@dataclass(eq=False, repr=False)
class Viewer:
    """What a client knows, which is all that arrived. `asked` is what it has not been answered, oldest first."""

    seed: int
    total: int | None
    first_prompt: str
    first_steps: int
    session: Session
    events: AsyncGenerator[SessionEvent, None]
    records: list[bytes]  # as the store may have them: the newest few
    arrived: list[SessionEvent] = field(default_factory=list)
    asked: deque[Asked] = field(default_factory=deque)
    pull: asyncio.Task[SessionEvent] | None = None

    def frames(self) -> list[bytes]:
        """What is there to be played: frames that were superseded have been dropped."""
        kept: list[bytes] = []
        for event in self.arrived:
            if isinstance(event, FrameChunk):
                kept += event.data
            elif isinstance(event, PromptApplied):
                del kept[event.first_frame :]
        return kept

    def told(self, per_chunk: int) -> Acknowledged:
        acks = [event for event in self.arrived if isinstance(event, PromptApplied)]
        qualities = [event for event in self.arrived if isinstance(event, StepsApplied)]
        return Acknowledged(
            tuple(PromptEntry(ack.first_frame // per_chunk, ack.prompt, ack.change) for ack in acks),
            tuple((event.first_frame // per_chunk, event.steps) for event in qualities),
        )

    def story(self, chunk: int, per_chunk: int) -> tuple[tuple[str, int], ...]:
        """Prompt and steps of each chunk up to `chunk`, by what was acknowledged."""
        prompts, steps = [self.first_prompt] * (chunk + 1), [self.first_steps] * (chunk + 1)
        told = self.told(per_chunk)
        for entry in told.prompts:
            prompts[entry.chunk :] = [entry.prompt] * (chunk + 1 - entry.chunk)
        for switch, number in told.steps:
            steps[switch:] = [number] * (chunk + 1 - switch)
        return tuple(zip(prompts, steps, strict=True))

    @property
    def halted(self) -> bool:
        """Paused, as far as it knows, with nothing asked since."""
        pauses = [event for event in self.arrived if isinstance(event, Paused | Resumed)]
        return bool(pauses) and isinstance(pauses[-1], Paused)


class Lives(RuleBasedStateMachine):
    """Several sessions on shared replicas."""

    def world(self) -> tuple[ModelConfig, TextEncoder, Denoiser]:
        return millrace_64(), FakeEncoder(), FakeDenoiser(millrace_64())

    def at_rest(self) -> bool:
        """The engine holds nothing."""
        return True

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.config, encoder, denoiser = self.world()
        self.per_chunk = self.config.frames_per_chunk
        self.replicas = Replicas(denoiser)
        decoder = FakeDecoder(self.config, self.replicas)
        self.pipeline = VideoPipeline(self.config, encoder, decoder, ReopenPolicy(attempts=50, backoff_s=0.0), KEEP)
        self.reference = Reference(encoder, FakeDecoder(self.config, denoiser), self.config.context_chunks)
        self.viewers: list[Viewer] = []
        self.requests = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def turn(self, turns: int) -> None:
        async def idle() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(idle())

    def pick(self, data: st.DataObject) -> Viewer:
        return data.draw(st.sampled_from(self.viewers))

    # -- what a viewer does -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.viewers) < MAX_VIEWERS)
    @rule(prompt=PROMPTS, seed=st.integers(0, 2), steps=STEPS, total=st.none() | st.integers(1, 200))
    def start(self, prompt: str, seed: int, steps: int, total: int | None) -> None:
        session = self.run(self.pipeline.open(SessionRequest("s", prompt, seed, steps, total)))
        viewer = Viewer(seed, total, prompt, steps, session, session.events(), [session.record().to_bytes()])
        self.viewers.append(viewer)

    @precondition(lambda self: self.viewers)
    @rule(data=st.data(), turns=TURNS)
    def begin_pull(self, data: st.DataObject, turns: int) -> None:
        viewer = self.pick(data)
        if viewer.pull is None:
            viewer.pull = self.loop.create_task(anext(viewer.events))
        self.turn(turns)

    @precondition(lambda self: any(not v.halted or v.asked for v in self.viewers))
    @rule(data=st.data(), most=st.integers(1, 16))
    def watch(self, data: st.DataObject, most: int) -> None:
        viewer = data.draw(st.sampled_from([v for v in self.viewers if not v.halted or v.asked]))
        for _ in range(most):
            if (viewer.halted and not viewer.asked) or not self.see(viewer):
                return

    def see(self, viewer: Viewer) -> bool:
        """Take the next event and judge it. False at the end."""
        viewer.records = [*viewer.records, viewer.session.record().to_bytes()][-6:]
        pull, viewer.pull = viewer.pull or anext(viewer.events), None
        try:
            event = self.run(pull)  # type: ignore[arg-type]
        except StopAsyncIteration:
            assert len(viewer.frames()) == viewer.total
            self.viewers.remove(viewer)
            return False
        self.judge(viewer, event)
        viewer.arrived.append(event)
        return True

    def judge(self, viewer: Viewer, event: SessionEvent) -> None:
        seen = len(viewer.frames())
        boundary = -(-seen // self.per_chunk) * self.per_chunk
        match event:
            case FrameChunk(index=index, first_frame=first_frame):
                assert first_frame == seen
                assert not viewer.halted
                made = self.run(self.reference.chunk(viewer.seed, viewer.story(index, self.per_chunk)))
                since = seen - index * self.per_chunk
                end = None if viewer.total is None else viewer.total - index * self.per_chunk
                assert event.data == made.data[since:end]
            case StepsApplied(first_frame=first_frame):
                assert first_frame == boundary
            case PromptApplied(prompt=prompt, first_frame=first_frame, request_id=request_id, superseded=superseded):
                asked = viewer.asked.popleft()
                assert (asked.kind, asked.prompt, asked.request_id) == (PromptApplied, prompt, request_id)
                if asked.replace_from is not None:
                    boundary = min(boundary, max(asked.reach, -(-asked.replace_from // self.per_chunk) * self.per_chunk))
                assert first_frame == boundary
                assert superseded == max(0, seen - first_frame)
            case Paused(next_frame=next_frame) | Resumed(next_frame=next_frame):
                assert viewer.asked.popleft().kind is type(event)
                assert next_frame == seen

    @precondition(lambda self: self.viewers)
    @rule(data=st.data(), prompt=PROMPTS, back=st.none() | st.integers(0, 60))
    def set_prompt(self, data: st.DataObject, prompt: str, back: int | None) -> None:
        """`back` frames, of those that have arrived, have not been played."""
        self.requests += 1
        viewer = self.pick(data)
        replace_from = None if back is None else max(0, len(viewer.frames()) - back)
        self.ask(viewer, Asked(PromptApplied, prompt, self.requests, replace_from))

    @precondition(lambda self: self.viewers)
    @rule(data=st.data(), kind=st.sampled_from([Paused, Resumed, Resumed]))
    def pause_or_resume(self, data: st.DataObject, kind: type[Paused | Resumed]) -> None:
        self.ask(self.pick(data), Asked(kind))

    def ask(self, viewer: Viewer, asked: Asked) -> None:
        if asked.kind is PromptApplied:
            self.run(viewer.session.set_prompt(asked.prompt, asked.request_id, asked.replace_from))
            first = viewer.session.record().first_chunk
            asked = replace(asked, reach=(first + self.config.context_chunks) * self.per_chunk if first else 0)
        elif asked.kind is Paused:
            viewer.session.pause()
        else:
            viewer.session.resume()
        viewer.asked.append(asked)

    @precondition(lambda self: self.viewers)
    @rule(data=st.data(), in_order=st.booleans())
    def leave(self, data: st.DataObject, in_order: bool) -> None:
        """Stop, or hang up."""
        viewer = self.pick(data)
        if in_order:
            viewer.session.stop()
            while viewer.pull is None and (event := self.run(anext(viewer.events, None))) is not None:
                assert not isinstance(event, FrameChunk)
        self.hang_up(viewer)

    def hang_up(self, viewer: Viewer) -> None:
        self.viewers.remove(viewer)
        if viewer.pull is not None:
            viewer.pull.cancel()
            self.run(asyncio.wait([viewer.pull]))
            if not viewer.pull.cancelled():
                viewer.pull.exception()
        self.run(viewer.events.aclose())

    # -- what happens to it -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.viewers)
    @rule(data=st.data(), steps=STEPS)
    def brown_out(self, data: st.DataObject, steps: int) -> None:
        self.pick(data).session.set_steps(steps)

    @rule(reason=st.sampled_from([StageUnavailable, EngineDead, StageDraining]), dead_opens=st.integers(0, 3))
    def lose_replica(self, reason: type[StageUnavailable], dead_opens: int) -> None:
        self.replicas.lose(reason, dead_opens)

    @precondition(lambda self: self.viewers)
    @rule(
        data=st.data(),
        lost=st.sampled_from([0, 0, 0, 1, 2, 4]),
        lag=st.sampled_from([0, 0, 1, 2, 3, 5]),
        again=st.booleans(),
        back=st.none() | st.integers(0, 60),
    )
    def crash(self, data: st.DataObject, lost: int, lag: int, again: bool, back: int | None) -> None:
        """The front door dies, the newest messages with it; the client goes on at another one from what the store has.

        It asks for what was not answered `again`, or lets it be; then it may steer at once.
        """
        viewer = self.pick(data)
        records = [*viewer.records, viewer.session.record().to_bytes()]
        viewer.records = records[: max(1, len(records) - lag)]
        self.hang_up(viewer)
        for _ in range(min(lost, len(viewer.arrived))):
            match viewer.arrived.pop():
                case PromptApplied(prompt=prompt, request_id=request_id):
                    viewer.asked.appendleft(Asked(PromptApplied, prompt, request_id, len(viewer.frames())))
                case Paused() | Resumed() as event:
                    viewer.asked.appendleft(Asked(type(event)))
        if not again:
            viewer.asked.clear()
        if self.come_back(viewer, SessionRecord.from_bytes(viewer.records[-1])) and back is not None:
            self.ask(viewer, Asked(PromptApplied, "a white ring", 0, max(0, len(viewer.frames()) - back)))

    def come_back(self, viewer: Viewer, record: SessionRecord) -> bool:
        seen = len(viewer.frames())
        now = reconcile(record, -(-seen // self.per_chunk), viewer.told(self.per_chunk))
        start = min(seen, now.chunk * self.per_chunk)
        first, last = self.pipeline.restorable(now.record)
        if not first <= start <= last:
            return False  # refused: too much was lost
        viewer.session = self.run(self.pipeline.restore(now.record, start))
        viewer.events, viewer.pull = viewer.session.events(), None
        for entry in now.prompts:
            assert entry.chunk * self.per_chunk >= start
            viewer.arrived.append(PromptApplied(entry.prompt, entry.chunk * self.per_chunk, entry.request_id, entry.change))
        viewer.arrived += [StepsApplied(steps, chunk * self.per_chunk) for chunk, steps in now.steps]
        self.viewers.append(viewer)
        again = list(viewer.asked)
        viewer.asked.clear()
        for asked in [*([Asked(Paused)] if viewer.halted else []), *again]:
            self.ask(viewer, asked)
        return True

    # -- what always holds ------------------------------------------------------------------------------------------------------

    @invariant()
    def bounded(self) -> None:
        for viewer in getattr(self, "viewers", ()):
            record = viewer.session.record()
            most = self.config.context_chunks + KEEP
            assert len(record.latents) <= most
            assert len(record.timeline) <= most + 2
            assert len(record.steps) <= most + 2

    @invariant()
    def only_who_watches_holds_a_slot(self) -> None:
        if not hasattr(self, "viewers"):
            return
        pulling = sum(v.pull is not None for v in self.viewers)
        watching = sum(v.pull is None and bool(v.arrived) and isinstance(v.arrived[-1], FrameChunk) for v in self.viewers)
        assert self.replicas.open <= watching + pulling

    def teardown(self) -> None:
        if not hasattr(self, "viewers"):
            return
        for viewer in list(self.viewers):
            self.hang_up(viewer)
        self.turn(3)
        assert self.replicas.open == 0
        assert not asyncio.all_tasks(self.loop)
        assert self.at_rest()
        self.loop.close()


Lives.TestCase.settings = settings(max_examples=250, stateful_step_count=40, derandomize=True)
TestLives = Lives.TestCase

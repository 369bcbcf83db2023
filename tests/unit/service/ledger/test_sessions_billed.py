"""What sessions of a front door put into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from model_core.errors import InvalidRequest, StageUnavailable
from service.call import Call, FileTooLarge
from service.controls import ChangePrompt, Control, Stop
from service.events import Ended, Event, Frames, PromptApplied, Started, Usage
from service.identity.principal import Means, Principal
from service.ledger.account import cut
from service.ledger.interface import AuditEntry, Kind, Outcome, UsageRow
from service.orders import Doorway, Mode, Order, ResumeRequest, VideoRequest
from tests.core import Core, core
from tests.fakes import FakeDenoiser, FakeStages, eventually

STREAM, LIVE, FILE = Doorway(Mode.STREAM), Doorway(Mode.LIVE), Doorway(Mode.FILE)
TWO_SECONDS = VideoRequest(prompt="a red circle", seconds=2.0, seed=7)
TIMEOUT_S = 200.0  # only bounds a failing test


class Book:
    """A ledger in memory, with the rule of the real one: a resume cuts what earlier legs wrote."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], UsageRow] = {}

    def record(self, row: UsageRow) -> None:
        self.rows[row.source, row.interval] = row

    def resumed(self, source: str, frame: int, leg: float) -> None:
        self.rows = {key: cut(row, frame) if row.leg < leg else row for key, row in self.rows.items()}

    @property
    def frames(self) -> int:
        return sum(row.frames for row in self.rows.values())


async def run(
    here: Core, order: Order, send: Callable[[Event], object], call: Call | None = None, controls: list[Control] | None = None
) -> None:
    waiting: asyncio.Queue[Control] = asyncio.Queue()

    async def sent(event: Event) -> None:
        send(event)
        if controls and isinstance(event, Frames):
            waiting.put_nowait(controls.pop(0))

    async with asyncio.timeout(TIMEOUT_S):
        await here.runner.run(order, sent, call or Call(), None if controls is None else waiting.get)


async def test_a_stream_is_billed_to_its_tenant_door_and_model() -> None:
    book, events = Book(), list[Event]()
    call = Call(principal=Principal(tenant="acme", subject="k1", means=Means.KEY), door="triton")
    async with core(ledger=book) as here:
        await run(here, here.intake.order(TWO_SECONDS, STREAM), events.append, call)
        config = here.stages.config
    (row,) = book.rows.values()
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert (row.source, row.interval, row.tenant, row.door, row.model) == ("id-1", 0, "acme", "triton", config.name)
    assert (row.kind, row.tier, row.frames, row.video_seconds) == (Kind.SESSION, "unpaced", 2 * config.fps, 2.0)
    assert row.pixels == ended.usage.pixels == 2 * config.fps * config.width * config.height
    assert row.denoise_seconds == pytest.approx(ended.usage.denoise_s)
    assert row.decode_seconds == pytest.approx(ended.usage.decode_s)


async def test_a_caller_without_a_name_is_billed_to_its_account() -> None:
    book = Book()
    async with core(ledger=book) as here:
        await run(here, here.intake.order(TWO_SECONDS, STREAM), lambda _: None)
    assert [(row.tenant, row.door) for row in book.rows.values()] == [("default", "grpc")]


async def test_a_session_that_goes_on_is_billed_each_frame_once() -> None:
    book, seen = Book(), list[Event]()

    def breaking(event: Event) -> None:
        if sum(isinstance(earlier, Frames) for earlier in seen) == 3:
            raise ConnectionError
        seen.append(event)

    async with core(FakeStages(keep_chunks=4), ledger=book) as here:
        with pytest.raises(ConnectionError):
            await run(here, here.intake.order(TWO_SECONDS, STREAM), breaking)
        (started,) = (event for event in seen if isinstance(event, Started))
        per_chunk = here.stages.config.frames_per_chunk
        assert book.frames == 3 * per_chunk
        # One chunk got lost on its way.
        order = await resumed(here, ResumeRequest(token=started.resume_token, next_frame=2 * per_chunk))
        await run(here, order, lambda _: None)
        assert book.frames == 2 * here.stages.config.fps
    rows = sorted((row.interval, row.frames) for row in book.rows.values() if row.frames)
    assert rows[0] == (0, 2 * per_chunk)
    assert rows[1][0] == 2 * per_chunk
    assert {row.source for row in book.rows.values()} == {"id-1"}


async def resumed(here: Core, request: ResumeRequest) -> Order:
    """The order, once the last write of the record is done, which happens beside the stream."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            with suppress(InvalidRequest):
                return await here.intake.resume(request, STREAM, "")
            await asyncio.sleep(0.001)


async def test_superseded_frames_are_not_billed() -> None:
    book, events = Book(), list[Event]()
    async with core(FakeStages(keep_chunks=8), ledger=book) as here:
        order = here.intake.order(VideoRequest(prompt="a red circle", max_lead_seconds=30.0), LIVE)
        per_chunk = here.stages.config.frames_per_chunk
        controls: list[Control] = [ChangePrompt("one", 1), ChangePrompt("a blue square", 2, replace_from=per_chunk), Stop()]
        await run(here, order, events.append, controls=controls)
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert any(isinstance(event, PromptApplied) for event in events)
    assert ended.usage.superseded > 0
    assert book.frames == ended.usage.frames
    assert {row.tier for row in book.rows.values()} == {"live"}


async def test_a_file_is_billed_when_it_is_made_and_a_failed_one_never() -> None:
    book = Book()
    async with core(ledger=book) as here:
        with pytest.raises(FileTooLarge):
            await here.runner.make_file(here.intake.order(TWO_SECONDS, FILE), Call(), max_bytes=100)
        assert book.rows == {}
        file = await here.runner.make_file(here.intake.order(TWO_SECONDS, FILE), Call(door="own"), max_bytes=10_000_000)
    (row,) = book.rows.values()
    assert (row.source, row.frames, row.door) == (file.started.session_id, file.ended.usage.frames, "own")


async def test_a_file_whose_stages_stay_away_is_billed_nothing() -> None:
    book, stages = Book(), FakeStages()
    stages = FakeStages(denoiser=FakeDenoiser(stages.config, fail_after=(1, 0, 0, 0)))
    async with core(stages, ledger=book) as here:
        with pytest.raises(StageUnavailable):
            await here.runner.make_file(here.intake.order(TWO_SECONDS, FILE), Call(), max_bytes=10_000_000)
    assert book.rows == {}


class Log:
    """An audit log that is a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def note(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


async def test_each_session_has_an_audit_entry_without_its_prompt() -> None:
    log, who = Log(), Principal(tenant="acme", subject="k1", means=Means.KEY)
    async with core(audit=log) as here:
        await run(here, here.intake.order(TWO_SECONDS, STREAM), lambda _: None, Call(principal=who, door="triton"))
        with pytest.raises(FileTooLarge):
            await here.runner.make_file(here.intake.order(TWO_SECONDS, FILE), Call(principal=who), max_bytes=100)
        endless = here.intake.order(VideoRequest(prompt="a red circle"), LIVE)
        leaving = asyncio.create_task(run(here, endless, lambda _: None, Call(principal=who), controls=[]))
        await eventually(lambda: here.runner.open_sessions == 1)
        leaving.cancel()
        await asyncio.wait({leaving})
        model = here.stages.config.name
    told = [(entry.operation, entry.outcome, entry.resource, entry.principal, entry.detail["ended"]) for entry in log.entries]
    assert told == [
        ("session", Outcome.ALLOWED, "id-1", who, "completed"),
        ("session", Outcome.FAILED, "id-2", who, "too_large"),
        ("session", Outcome.ALLOWED, "id-3", who, "cancelled"),
    ]
    assert log.entries[0].detail == {"door": "triton", "model": model, "ended": "completed", "resumed": False}
    assert "red" not in repr(log.entries)


def test_usage_counts_pixels_of_the_frames_that_are_kept() -> None:
    usage = Usage(fps=10, frames=20, frame_pixels=6)
    assert (usage.pixels, usage.less(5).pixels) == (120, 90)

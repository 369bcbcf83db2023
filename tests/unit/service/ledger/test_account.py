"""Rows of a session: each frame that its caller keeps is billed once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from model_core.types import Codec, FrameChunk, StageTiming
from service.events import Usage
from service.ledger.account import Billed, SessionAccount, cut, whole
from service.ledger.interface import Kind, UsageRow

FPS, FRAMES = 10, 5  # two chunks a second
BILLED = Billed(source="s1", tenant="acme", door="grpc", model="m", tier="live", kind=Kind.SESSION)
DENOISER = StageTiming("denoiser", 0.0, 0.5, 0.25, steps_s=(0.3, 0.2, 0.1, 0.0))
DECODER = StageTiming("decoder", 0.0, 0.1, 0.125)


def chunk(index: int, *, frames: int = FRAMES) -> FrameChunk:
    return FrameChunk(
        index=index, first_frame=index * FRAMES, num_frames=frames, height=4, width=6, codec=Codec.JPEG, data=(b"",) * frames,
        latents=np.zeros((1, 1, 1, 1), np.float32), timings=(DENOISER, DECODER),
    )  # fmt: skip


class Book:
    """A ledger in memory, with the rule of the real one: a resume cuts what earlier legs wrote."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], UsageRow] = {}
        self.resumes: list[tuple[str, int, float]] = []

    def record(self, row: UsageRow) -> None:
        self.rows[row.source, row.interval] = row

    def resumed(self, source: str, frame: int, leg: float) -> None:
        self.resumes.append((source, frame, leg))
        self.rows = {key: cut(row, frame) if row.leg < leg else row for key, row in self.rows.items()}

    @property
    def kept(self) -> list[UsageRow]:
        return [row for _, row in sorted(self.rows.items()) if row.frames]

    @property
    def frames(self) -> int:
        return sum(row.frames for row in self.kept)


def account(book: Book, *, resumed_at: int | None = None, at: float = 100.0, text_seconds: float = 0.0) -> SessionAccount:
    times = itertools.count(at)
    return SessionAccount(book, BILLED, FPS, lambda: float(next(times)), resumed_at=resumed_at, text_seconds=text_seconds, interval_s=2.0)


def test_a_session_is_cut_by_media_time_and_each_row_has_its_share() -> None:
    book = Book()
    session = account(book, text_seconds=0.5)
    for index in range(5):
        session.sent(chunk(index))
    assert [(row.interval, row.frames, row.steps, row.text_seconds) for row in book.kept] == [(0, 20, 16, 0.5), (20, 5, 4, 0.0)]
    first = book.kept[0]
    assert (first.tenant, first.door, first.model, first.tier, first.kind) == ("acme", "grpc", "m", "live", Kind.SESSION)
    assert (first.video_seconds, first.pixels, first.denoise_seconds, first.decode_seconds) == (2.0, 20 * 24, 1.0, 0.5)
    assert first.leg == book.kept[1].leg == 100.0
    assert first.started_at < book.kept[1].started_at


def test_a_row_is_written_again_while_it_grows_and_never_added_to() -> None:
    book, seen = Book(), []
    session = account(book)
    for index in range(3):
        session.sent(chunk(index))
        seen.append(book.frames)
    assert seen == [5, 10, 15]


def test_superseded_frames_are_not_billed_even_if_nothing_follows() -> None:
    book = Book()
    session = account(book)
    for index in range(6):
        session.sent(chunk(index))
    session.superseded(15)
    assert [(row.interval, row.frames, row.steps) for row in book.kept] == [(0, 15, 12)]
    assert book.kept[0].denoise_seconds == pytest.approx(0.75)


def test_frames_that_come_again_are_billed_once() -> None:
    book = Book()
    session = account(book)
    for index in (0, 1, 2, 3, 4, 5):
        session.sent(chunk(index))
    session.superseded(15)
    for index in (3, 4, 5, 6):
        session.sent(chunk(index))
    assert [(row.interval, row.frames) for row in book.kept] == [(0, 20), (20, 15)]
    assert sum(row.steps for row in book.kept) == 7 * 4


def test_a_resume_bills_the_frames_that_got_lost_once() -> None:
    book = Book()
    before = account(book)
    for index in range(7):
        before.sent(chunk(index))
    after = account(book, resumed_at=25, at=200.0)
    assert book.frames == 25
    for index in (5, 6, 7, 8):
        after.sent(chunk(index))
    assert [(row.interval, row.frames, row.leg) for row in book.kept] == [(0, 20, 100.0), (20, 5, 100.0), (25, 15, 200.0), (40, 5, 200.0)]
    assert book.frames == 45
    assert all(row.text_seconds == 0 for row in book.kept[2:])


def test_a_resume_within_a_chunk_bills_the_rest_of_it() -> None:
    book = Book()
    before = account(book)
    before.sent(chunk(0))
    after = account(book, resumed_at=3, at=200.0)
    after.sent(replace(chunk(0), first_frame=3, num_frames=2))
    assert [(row.interval, row.frames) for row in book.kept] == [(0, 3), (3, 2)]


def test_a_supersession_behind_the_resume_cuts_the_earlier_connection_too() -> None:
    book = Book()
    before = account(book)
    for index in range(6):
        before.sent(chunk(index))
    after = account(book, resumed_at=30, at=200.0)
    after.sent(chunk(6))
    after.superseded(25)
    after.sent(chunk(5))
    assert book.resumes == [("s1", 30, 200.0), ("s1", 25, 200.0)]
    assert [(row.interval, row.frames, row.leg) for row in book.kept] == [(0, 20, 100.0), (20, 5, 100.0), (25, 5, 200.0)]


def test_a_supersession_beyond_the_recent_chunks_takes_a_share() -> None:
    book = Book()
    times = itertools.count(0)
    session = SessionAccount(book, BILLED, FPS, lambda: float(next(times)), interval_s=60.0)
    for index in range(100):
        session.sent(chunk(index))
    session.superseded(100)
    assert book.frames == 100
    assert book.kept[0].denoise_seconds == pytest.approx(20 * 0.25)
    session.sent(chunk(20))
    assert (book.frames, book.kept[0].steps) == (105, 84)


def test_a_whole_file_is_one_row() -> None:
    usage = Usage(fps=FPS, frames=20, frame_pixels=24, steps=16, denoise_s=1.0, decode_s=0.5)
    row = whole(replace(BILLED, kind=Kind.JOB, source="j1"), usage, started_at=7.0)
    assert (row.source, row.interval, row.frames, row.video_seconds, row.pixels, row.steps) == ("j1", 0, 20, 2.0, 480, 16)
    assert (row.denoise_seconds, row.decode_seconds, row.started_at, row.kind) == (1.0, 0.5, 7.0, Kind.JOB)


def test_a_cut_row_keeps_its_share() -> None:
    row = whole(BILLED, Usage(fps=FPS, frames=20, frame_pixels=24, steps=16, denoise_s=1.0, text_s=0.5), 0.0)
    half = cut(row, 10)
    assert (half.frames, half.video_seconds, half.pixels, half.steps, half.denoise_seconds) == (10, 1.0, 240, 8, 0.5)
    assert half.text_seconds == 0.5
    assert cut(row, 25) == cut(row, 20) == row
    assert (cut(row, 0).frames, cut(row, 0).text_seconds) == (0, 0.0)

"""The latent log of models whose chunks differ in size, and of those that attend to a session's first chunks for good."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model_core.chunk_grid import ChunkGrid
from model_core.session_log import Extent, PromptEntry, SessionLog, SessionRecord
from model_core.types import Codec, Latents, TextEmbedding

TEXT = TextEmbedding("a dog", np.zeros((1, 2), np.float32), np.ones(1, np.bool_))
WINDOW = 3
EXTENT = Extent(ChunkGrid(first=1, rest=3, factor=4, head=1), WINDOW, keep=2, sink=2)


def latents(chunk: int) -> Latents:
    """Chunk 0 is of another length than the others."""
    return np.full((2, 3 if chunk else 1, 2, 2), chunk, np.float32)


def log_of(chunks: int) -> SessionLog:
    log = SessionLog(TEXT, 4, EXTENT)
    for chunk in range(chunks):
        log.append(latents(chunk))
    return log


def numbers(held: tuple[Latents, ...]) -> list[int]:
    return [int(item.flat[0]) for item in held]


def record(log: SessionLog) -> SessionRecord:
    first, held, timeline, steps = log.tail()
    return SessionRecord(
        model="m", fingerprint="f", session_id="s", seed=7, num_steps=4, num_frames=None, codec=Codec.RAW_RGB, first_chunk=first,
        latents=held, timeline=timeline, steps=steps, sink=log.sink(len(held)),
    )  # fmt: skip


def test_the_sink_is_what_of_the_first_chunks_the_suffix_does_not_hold() -> None:
    told = {n: (numbers(log_of(n).sink(WINDOW)), numbers(log_of(n).suffix())) for n in (0, 1, 3, 4, 5, 9)}
    assert told == {0: ([], []), 1: ([], [0]), 3: ([], [0, 1, 2]), 4: ([0], [1, 2, 3]), 5: ([0, 1], [2, 3, 4]), 9: ([0, 1], [6, 7, 8])}


def test_a_record_says_by_which_rules_its_fingerprint_was_made() -> None:
    written = replace(record(log_of(3)), fingerprint_version=7)
    data = written.to_bytes()
    assert SessionRecord.from_bytes(data).fingerprint_version == 7
    size = struct.unpack_from("<4sI", data)[1]
    header = json.loads(data[8 : 8 + size])
    del header["fingerprint_version"]  # as records were before
    text = json.dumps(header).encode()
    assert SessionRecord.from_bytes(struct.pack("<4sI", b"HRL2", len(text)) + text + data[8 + size :]).fingerprint_version == 2


@pytest.mark.parametrize("chunks", [0, 1, 2, 4, 5, 6, 7, 12])
def test_a_record_holds_the_sink_and_chunks_of_any_size(chunks: int) -> None:
    written = record(log_of(chunks))
    read = SessionRecord.from_bytes(written.to_bytes())
    assert numbers(read.latents) == numbers(log_of(chunks).tail()[1])
    assert [part.shape for part in (*read.sink, *read.latents)] == [part.shape for part in (*written.sink, *written.latents)]
    for next_chunk in range(max(read.first_restorable(WINDOW), chunks - 1), chunks + 1):
        again = SessionLog.restore(read, next_chunk, [TEXT], EXTENT)
        assert (numbers(again.sink(WINDOW)), numbers(again.suffix())) == (
            numbers(log_of(next_chunk).sink(WINDOW)), numbers(log_of(next_chunk).suffix()),
        )  # fmt: skip


def test_going_back_into_the_sink_drops_what_was_made_there() -> None:
    log = log_of(3)
    log.change_prompt(replace(TEXT, prompt="a cat"), 1, supersedes=True)
    assert (numbers(log.suffix()), log.next_chunk) == ([0], 1)
    for _ in range(4):
        log.append(latents(9))
    assert numbers(log.sink(WINDOW)) == [0, 9]
    assert numbers(record(log_of(3)).changed(PromptEntry(1, "a cat")).latents) == [0]


def test_a_record_with_bytes_missing_or_left_over_is_none() -> None:
    data = record(log_of(4)).to_bytes()
    for spoilt in (data[:-4], data + b"\0\0\0\0"):
        with pytest.raises(ValueError, match="no session record"):
            SessionRecord.from_bytes(spoilt)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shapes", [[-1, -4]]), ("shapes", [[2**62, 2**62]]), ("shapes", [[1.0, 2]]), ("shapes", [[1] * 9]), ("shapes", [3]), ("shapes", 7),
        ("chunks", -1), ("chunks", 99), ("sink", -2), ("timeline", []), ("steps", []), ("timeline", 5), ("given", 7),
    ],
)  # fmt: skip
def test_a_record_whose_header_lies_is_none(name: str, value: object) -> None:
    """Nothing is allocated by what it says before it is checked against the bytes that are there."""
    with pytest.raises(ValueError, match="no session record"):
        SessionRecord.from_bytes(with_header(record(log_of(4)).to_bytes(), lambda header: json.dumps(header | {name: value})))


def test_a_record_whose_header_is_nested_or_huge_is_none() -> None:
    data = record(log_of(1)).to_bytes()
    for header in ("[" * 100_000, "3", '"' + "a" * (5 << 20) + '"'):
        with pytest.raises(ValueError, match="no session record"):
            SessionRecord.from_bytes(with_header(data, lambda _, header=header: header))  # type: ignore[misc]


def with_header(data: bytes, change: Callable[[dict[str, object]], str]) -> bytes:
    magic, size = struct.unpack_from("<4sI", data)
    text = change(json.loads(data[8 : 8 + size])).encode()
    return struct.pack("<4sI", magic, len(text)) + text + data[8 + size :]


def test_a_last_chunk_may_be_shorter() -> None:
    """AnyFlow-FAR's 81 frames are 1 + 6 x 3 + 2 latent frames."""
    grid = ChunkGrid(first=1, rest=3, factor=4, head=1, chunks=8, last=2)
    assert [grid.latents(chunk) for chunk in range(8)] == [1, 3, 3, 3, 3, 3, 3, 2]
    assert [grid.frames(chunk) for chunk in range(8)] == [1, 12, 12, 12, 12, 12, 12, 8]
    assert (grid.max_frames, grid.chunk_from(81), grid.chunk_of(80), grid.chunk_of(73), grid.chunk_of(72)) == (81, 8, 7, 7, 6)
    assert [grid.chunk_of(frame) for frame in range(81)] == [chunk for chunk in range(8) for _ in range(grid.frames(chunk))]

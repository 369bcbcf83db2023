"""The length of an MP4, from its header, of files that anybody may have written."""

from __future__ import annotations

import struct

import pytest

from doors.http.openai.mp4_length import mp4_seconds
from tests.pictures import video


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(content) if size is None else size) + kind + content


def header(scale: int, duration: int, *, wide: bool = False) -> bytes:
    times = struct.pack(">QQIQ" if wide else ">IIII", 0, 0, scale, duration)
    return box(b"moov", box(b"mvhd", bytes([wide, 0, 0, 0]) + times + bytes(80)))


def test_an_encoders_file_says_how_long_it_is() -> None:
    assert mp4_seconds(video(36)) == pytest.approx(1.5, abs=0.002)


@pytest.mark.parametrize("wide", [False, True])
def test_times_of_both_widths_are_read(*, wide: bool) -> None:
    assert mp4_seconds(box(b"ftyp", b"isom") + header(600, 1500, wide=wide)) == 2.5


def test_a_size_that_stands_behind_the_name_or_reaches_to_the_end_is_read() -> None:
    inner = header(1000, 4000)
    large = struct.pack(">I", 1) + b"mdat" + struct.pack(">Q", 24) + bytes(8)
    assert mp4_seconds(large + inner) == 4.0
    assert mp4_seconds(box(b"moov", inner[8:], size=0)) == 4.0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        header(0, 4000),
        header(1000, 0),
        box(b"moov", b""),
        box(b"moov", box(b"mvhd", b"")),
        box(b"moov", box(b"mvhd", bytes([9]) + bytes(40))),
        box(b"moov", box(b"mvhd", bytes(14))),
        box(b"free", b"", size=4) + header(1000, 4000),
        box(b"free", b"", size=10_000) + header(1000, 4000),
        struct.pack(">I", 1) + b"mdat",
    ],
)
def test_a_file_that_does_not_say_it_has_no_length(data: bytes) -> None:
    assert mp4_seconds(data) is None


def test_a_file_of_many_boxes_is_not_read_to_its_end() -> None:
    assert mp4_seconds(box(b"free", b"") * 63 + header(1000, 4000)) == 4.0
    assert mp4_seconds(box(b"free", b"") * 64 + header(1000, 4000)) is None

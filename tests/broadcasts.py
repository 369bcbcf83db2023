"""Groups of coded pictures for tests of what is broadcast."""

from __future__ import annotations

from functools import cache

import numpy as np

from model_core import media
from model_core.access_units import Group, Header, group_of
from model_core.types import Codec, FrameChunk
from service.events import Frames, Started

FPS, CHUNK = 24, 8
WIDTH, HEIGHT = 96, 64


@cache
def segment() -> bytes:
    return media.fmp4_init_segment(WIDTH, HEIGHT, FPS)


@cache
def header() -> Header:
    return Header.of(segment(), WIDTH, HEIGHT, FPS, CHUNK)


@cache
def fragment(first_frame: int, count: int = CHUNK, shade: int = 128) -> bytes:
    """Of one shade of grey."""
    return media.fmp4_fragment(np.full((count, HEIGHT, WIDTH, 3), shade, np.uint8), first_frame, FPS)


def group(first_frame: int, count: int = CHUNK, shade: int = 128) -> Group:
    return group_of(fragment(first_frame, count, shade), first_frame, count)


def started(next_frame: int = 0, codec: Codec = Codec.FMP4_H264) -> Started:
    return Started(
        session_id="s", model="m", seed=1, width=WIDTH, height=HEIGHT, fps=FPS, frames_per_chunk=CHUNK, steps=4, codec=codec,
        codec_header=segment(), next_frame=next_frame,
    )  # fmt: skip


def frames(first_frame: int, count: int = CHUNK, shade: int = 128) -> Frames:
    data = (fragment(first_frame, count, shade),)
    nothing = np.empty((0, 0, 0, 0), np.float32)
    return Frames(FrameChunk(first_frame // CHUNK, first_frame, count, HEIGHT, WIDTH, Codec.FMP4_H264, data, nothing))

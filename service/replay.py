"""The last seconds of a session once more, slowed down, from its record. Pure.

A record holds the clean latents of the newest chunks. A replay is a session that is given them: nothing is denoised again, the decoder
renders them, and the enhancer makes the frames between. It leaves the session that it shows as it is, whether that one runs or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model_core.config import ModelConfig
from model_core.enhancement import Enhancement
from model_core.fingerprint import enhancer_fingerprint
from model_core.reconcile import Reconciled
from model_core.session_log import PromptEntry, SessionRecord
from model_core.types import Codec, Conditioning
from service.checks import Problems
from service.orders import DEFAULT_CODEC, Doorway, ResumePoint

SLOWER = (2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What a caller wants to see again. Nothing is checked yet.

    Attributes:
        token: from `Started`, as for a resume.
        seconds: of the session's own playback.
        slow: how many times slower it is shown.
        until_frame: the session's frame that it ends before, at the end of its chunk; 0 for the newest that is recorded.
        codec, max_lead_seconds: as in `VideoRequest`.
    """

    token: str
    seconds: float = 5.0
    slow: int = 2
    until_frame: int = 0
    codec: Codec = DEFAULT_CODEC
    max_lead_seconds: float = 0.0


def check_replay(request: ReplayRequest, most_s: float, doorway: Doorway, problems: Problems) -> None:
    """Add what is wrong with it, as far as that can be said without the session."""
    if not 0 < request.seconds <= most_s:  # nor is it NaN
        problems.add(doorway.path("seconds"), f"must be a number above 0 and at most {most_s:g}; got {request.seconds:g}")
    if request.slow not in SLOWER:
        problems.add(doorway.path("slow"), f"must be one of {', '.join(map(str, SLOWER))}; got {request.slow}")
    if request.until_frame < 0:
        problems.add(doorway.path("until_frame"), f"must be a frame of the session, or 0 for the newest; got {request.until_frame}")


def replay_point(
    record: SessionRecord, config: ModelConfig, request: ReplayRequest, doorway: Doorway, session_id: str, problems: Problems
) -> ResumePoint:
    """Where the session that replays `record` begins. Its first chunks are those that the decoder must have seen, and are not shown.

    `config` is the model as stages see it. As many of the seconds are shown as the record holds.

    Raises:
        InvalidRequest: nothing of them is held.
    """
    shown, grid = config.shown(record.enhance).grid, config.grid
    first = record.first_restorable(config.context_chunks)
    end = min(record.next_chunk, shown.chunk_from(request.until_frame)) if request.until_frame else record.next_chunk
    wanted = math.ceil(request.seconds / config.chunk_seconds)
    begin = max(first, end - wanted)
    if begin >= end:
        held = f"frames {shown.first_frame(first)} to {shown.first_frame(record.next_chunk)}"
        problems.add(doorway.path("until_frame"), f"must be within what the session's record holds, {held}; got {request.until_frame}")
    problems.check()
    seen = min(config.context_chunks, begin - record.first_chunk)
    latents = record.latents[begin - seen - record.first_chunk : end - record.first_chunk]
    cut = 0
    if record.num_frames is not None:  # the session's last chunk was cut
        decoded = math.ceil(record.num_frames / record.enhance.frames)
        cut = max(0, grid.first_frame(end) - decoded)
    enhance = Enhancement(frames=request.slow, size=record.enhance.size, slow=request.slow)
    replay = SessionRecord(
        model=record.model, fingerprint=record.fingerprint, session_id=session_id, seed=record.seed, num_steps=config.min_steps,
        num_frames=request.slow * (grid.first_frame(len(latents)) - cut), codec=request.codec, first_chunk=0, latents=latents[:seen],
        timeline=(PromptEntry(0, record.timeline[-1].prompt),), steps=((0, config.min_steps),),
        given=Conditioning(head=np.concatenate(latents, axis=1)), numerics=record.numerics, enhance=enhance,
        enhancer=enhancer_fingerprint(config), fingerprint_version=record.fingerprint_version,
    )  # fmt: skip
    return ResumePoint(Reconciled(replay, seen, (), ()), request.slow * grid.first_frame(seen))

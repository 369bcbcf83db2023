"""Measures finished videos of some jobs, before the jobs are completed: their numbers come with them, and into the metrics.

Nothing depends on it. A video that cannot be measured, or not in time, has no numbers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from model_core.config import ModelConfig
from model_core.file_parts import Placement
from model_core.quality.aside import Late, Unmeasured
from model_core.quality.values import Quality
from model_core.quality.wish import Wish, has_detector
from observability import catalogue as c
from observability.metrics import Metrics
from service.jobs.work import ClaimedJob

log = logging.getLogger(__name__)

Count = Callable[[str, str, Quality | None], None]
"""Told of each video that was looked at: its model, how that ended (`measured`, `late`, `failed`), and its numbers."""


class Looks(Protocol):
    """What measures a file; `model_core.quality.aside.Aside` is it."""

    async def look(self, path: Path, wish: Wish) -> Quality:
        """Raises Late or Unmeasured."""
        ...


class JobQuality:
    """Of the jobs of one front door.

    Args:
        share: of the jobs, from 0 to 1. A job's id decides, so that all front doors agree.
        most_frames: of a longer video, so many are looked at.
        aside: what measures.
        count: told of each.
    """

    def __init__(self, share: float, most_frames: int, aside: Looks, count: Count) -> None:
        self._share = share
        self._most_frames = most_frames
        self._aside = aside
        self._count = count

    async def of(self, claimed: ClaimedJob, path: Path, placed: Placement, config: ModelConfig) -> Quality | None:
        """The numbers of the job's file at `path`; None where the job is none that is measured, or could not be."""
        job = claimed.job
        if not chosen(job.id, self._share):
            return None
        try:
            quality = await self._aside.look(path, self._wish(claimed, placed, config))
        except Unmeasured as error:
            log.warning("job %s is completed without a measure of its quality: %s", job.id, error)
            self._count(job.model, "late" if isinstance(error, Late) else "failed", None)
            return None
        self._count(job.model, "measured", quality)
        return quality

    def _wish(self, claimed: ClaimedJob, placed: Placement, config: ModelConfig) -> Wish:
        """The pictures without the borders around them; of a job with later prompts, what the first one shows is compared with it."""
        request = claimed.request
        shots = [seconds for seconds, _ in request.later_prompts]
        return Wish(
            prompt=request.prompt if has_detector(config) else "", prompt_frames=int(min(shots) * config.fps) if shots else None,
            most_frames=self._most_frames, content=(placed.left, placed.top, placed.inner_width, placed.inner_height),
        )  # fmt: skip


def counted_by(metrics: Metrics) -> Count:
    """A `Count` into metrics."""

    def count(model: str, how: str, quality: Quality | None) -> None:
        series = metrics.of(model)
        series.quality_videos[how].inc()
        if quality is None:
            return
        seen, adherence = quality.measures, quality.adherence
        numbers = {
            c.QUALITY_FLICKER: seen.flicker, c.QUALITY_BRIGHTNESS: seen.brightness_flicker, c.QUALITY_SMOOTHNESS: seen.smoothness,
            c.QUALITY_FROZEN: seen.frozen_share, c.QUALITY_BLACK: seen.black_share,
            c.QUALITY_ADHERENCE: None if adherence is None else adherence.score,
        }  # fmt: skip
        for metric, number in numbers.items():
            if number is not None:
                series.quality[metric.name].observe(number)

    return count


def chosen(job_id: str, share: float) -> bool:
    """Whether a job is among the `share` that is measured."""
    number = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8])
    return number < share * 2**64

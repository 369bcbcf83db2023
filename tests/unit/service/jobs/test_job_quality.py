"""Quality of finished videos: which jobs are measured, what is looked at, and that no job depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from model_core.quality.aside import Aside, Late, Unmeasured
from model_core.quality.values import Adherence, Measures, Quality
from model_core.quality.wish import Wish
from observability.metrics import Metrics
from service.database.engine import Database
from service.jobs.job import JobStatus, Presentation
from service.jobs.worker.quality import Count, JobQuality, Looks, chosen, counted_by
from service.orders import VideoRequest
from tests.core import core
from tests.fakes import eventually
from tests.job_queue import Works, works
from tests.jobs import ALICE, FINISHED, Jobs

REQUEST = VideoRequest(prompt="a red circle", seconds=2.0, seed=7)
SEEN = Quality(
    measures=Measures(
        frames=48, width=64, height=64, flicker=0.25, worst_flicker=0.5, brightness_flicker=0.125, smoothness=0.96, frozen_share=0.0,
        longest_frozen_frames=0, black_share=0.5,
    ),
    adherence=Adherence(detector="millrace-64", windows=2, score=0.5, shares={"shape": 0.5}),
)  # fmt: skip


class Eye:
    """Looks at files without a process. `error` is raised in place of numbers; `ever`: it never ends."""

    def __init__(self, error: Exception | None = None, *, ever: bool = False) -> None:
        self.error, self.ever = error, ever
        self.wishes: list[Wish] = []
        self.stopped = False

    async def look(self, path: Path, wish: Wish) -> Quality:
        self.wishes.append(wish)
        assert path.name == "video.mp4"
        try:
            if self.ever:
                await asyncio.Event().wait()
        finally:
            self.stopped = True
        if self.error is not None:
            raise self.error
        return SEEN


def nobody_counts(_model: str, _how: str, _quality: Quality | None) -> None: ...


def measuring(eye: Looks, count: Count = nobody_counts, share: float = 1.0) -> JobQuality:
    return JobQuality(share, 1200, eye, count)


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[Works, None]:
    async with core() as made:
        yield works(made, folder)


async def test_a_finished_job_has_its_numbers_and_they_are_counted(tmp_path: Path) -> None:
    eye, registry = Eye(), CollectorRegistry()
    async with served(tmp_path) as made:
        job = made.queue.add(REQUEST, presentation=Presentation(320, 180))
        async with made.working(quality=measuring(eye, counted_by(Metrics(registry)))):
            [row] = await made.queue.over(job)
    assert row.finished is not None
    assert row.finished.quality == SEEN
    # The pictures stand in the middle, as high as the file.
    assert eye.wishes == [Wish(prompt="a red circle", most_frames=1200, content=(70, 0, 180, 180))]
    value = registry.get_sample_value
    assert value("headrace_quality_videos_total", {"model": "millrace-64", "measured": "measured"}) == 1
    for name, number in (("flicker", 0.25), ("brightness_flicker", 0.125), ("smoothness", 0.96), ("black", 0.5), ("adherence", 0.5)):
        assert value(f"headrace_quality_{name}_ratio_sum", {"model": "millrace-64"}) == number
        assert value(f"headrace_quality_{name}_ratio_count", {"model": "millrace-64"}) == 1


async def test_only_what_the_first_prompt_shows_is_compared_with_it(tmp_path: Path) -> None:
    eye = Eye()
    async with served(tmp_path) as made:
        job = made.queue.add(replace(REQUEST, later_prompts=((0.5, "a blue square"), (1.5, "a green star"))))
        async with made.working(quality=measuring(eye)):
            await made.queue.over(job)
    assert [(wish.prompt, wish.prompt_frames) for wish in eye.wishes] == [("a red circle", 12)]


@pytest.mark.parametrize(("error", "how"), [(Late("it took more than 1 s"), "late"), (Unmeasured("no process started"), "failed")])
async def test_a_video_that_cannot_be_measured_is_completed_without_numbers(tmp_path: Path, error: Exception, how: str) -> None:
    counted: list[tuple[str, str, Quality | None]] = []
    async with served(tmp_path) as made:
        job = made.queue.add(REQUEST)
        async with made.working(quality=measuring(Eye(error), lambda *told: counted.append(told))):
            [row] = await made.queue.over(job)
    assert (row.status, row.finished is not None and row.finished.quality) == (JobStatus.COMPLETED, None)
    assert counted == [("millrace-64", how, None)]


async def test_a_worker_that_stops_waits_for_no_numbers(tmp_path: Path) -> None:
    eye = Eye(ever=True)
    async with served(tmp_path) as made:
        job = made.queue.add(REQUEST)
        async with made.working(quality=measuring(eye)):
            await eventually(lambda: bool(eye.wishes))
        row = made.queue.rows[job]
        assert (row.status, row.finished is not None and row.finished.quality, eye.stopped) == (JobStatus.COMPLETED, None, True)


async def test_a_cancel_ends_the_measuring_too(tmp_path: Path) -> None:
    eye = Eye(ever=True)
    async with served(tmp_path) as made:
        job = made.queue.add(REQUEST)
        async with made.working(quality=measuring(eye)):
            await eventually(lambda: bool(eye.wishes))
            made.queue.rows[job].cancelling = True
            [row] = await made.queue.over(job)
            assert row.status is JobStatus.CANCELLED
            assert eye.stopped


async def test_a_real_video_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        job = made.queue.add(replace(REQUEST, prompt="something that no detector knows", seconds=1.0), presentation=Presentation(320, 180))
        async with made.working(quality=measuring(Aside(120.0))):
            [row] = await made.queue.over(job, within_s=200.0)
    assert row.finished is not None
    assert row.finished.quality is not None
    seen = row.finished.quality.measures
    assert (seen.frames, seen.width, seen.height) == (24, 180, 180)


def test_the_same_share_of_jobs_is_chosen_at_every_front_door() -> None:
    ids = [f"job{number:09d}" for number in range(4000)]
    few, more = ({each for each in ids if chosen(each, share)} for share in (0.1, 0.3))
    assert few < more
    assert len(few) == pytest.approx(400, abs=80)
    assert not any(chosen(each, 0.0) for each in ids)
    assert all(chosen(each, 1.0) for each in ids)


async def test_a_job_that_is_not_chosen_is_not_looked_at(tmp_path: Path) -> None:
    eye = Eye()
    async with served(tmp_path) as made:
        job = made.queue.add(REQUEST)
        async with made.working(quality=measuring(eye, share=1e-12)):
            [row] = await made.queue.over(job)
    assert (row.status, eye.wishes) == (JobStatus.COMPLETED, [])


@pytest.mark.parametrize("quality", [SEEN, replace(SEEN, adherence=None), None])
async def test_numbers_are_kept_with_the_job(database: Database, quality: Quality | None) -> None:
    jobs = Jobs(database)
    job_id, fence = await jobs.running()
    assert (await jobs.desk.get(ALICE, job_id)).quality is None
    await jobs.store.complete(job_id, fence, replace(FINISHED, quality=quality))
    assert (await jobs.desk.get(ALICE, job_id)).quality == quality

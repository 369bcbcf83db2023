"""Workers over stages without a model: jobs are made, go on elsewhere, end, and leave nothing behind."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import av
import pytest

from model_core.errors import SessionBroken, StageUnavailable
from model_core.tasks import cancel_and_wait
from service.call import Call
from service.events import Event
from service.jobs.files.destinations import DestinationRefused
from service.jobs.files.render import RenderedFile
from service.jobs.job import Destination, Job, JobStatus, Presentation
from service.jobs.work import UploadRef
from service.jobs.worker.attempt import WorkPolicy
from service.orders import Doorway, Mode, VideoRequest
from tests.core import core
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.job_queue import POLICY, Works, works
from tests.pictures import encoded, picture

REQUEST = VideoRequest(prompt="a red circle", seconds=2.0, seed=7)
SLOW = replace(POLICY, checkpoint_s=1e9)


@asynccontextmanager
async def over(folder: Path, stages: FakeStages | None = None, max_sessions: int = 4) -> AsyncGenerator[Works, None]:
    async with core(stages, max_sessions=max_sessions) as served:
        yield works(served, folder)
        await eventually(lambda: served.runner.open_sessions == 0 and served.stages.open_streams == 0)
        statistics = served.desk.statistics()
        assert (statistics.live, statistics.live_jobs, statistics.waiting) == (0, 0, 0)


def gated() -> tuple[FakeStages, asyncio.Semaphore]:
    """Stages that make a chunk for each permit."""
    gate, stages = asyncio.Semaphore(0), FakeStages()
    return FakeStages(denoiser=FakeDenoiser(stages.config, gate=gate)), gate


async def undisturbed(folder: Path, request: VideoRequest = REQUEST) -> bytes:
    async with over(folder) as made:
        job = made.queue.add(request)
        async with made.working():
            await made.queue.over(job)
        return await made.video(job)


async def test_a_job_becomes_one_file_and_pictures_of_it_and_nothing_else_stays(tmp_path: Path) -> None:
    async with over(tmp_path) as made:
        job = made.queue.add(REQUEST, tenant="acme")
        async with made.working():
            [row] = await made.queue.over(job)
        assert row.finished is not None
        assert (row.status, row.finished.usage.frames, row.finished.usage.video_s) == (JobStatus.COMPLETED, 48, 2.0)
        with av.open(io.BytesIO(await made.video(job)), "r") as file:
            assert len(list(file.decode(video=0))) == 48
        assert [key.rpartition("/")[2] for key in await made.keys()] == ["spritesheet.jpg", "thumbnail.webp", "video.mp4"]
        assert made.queue.billed == [job]


@pytest.mark.parametrize("shots", [(), ((0.5, "a blue square"), (1.5, "a green star"))])
async def test_a_job_goes_on_from_its_checkpoint_with_the_same_bytes(tmp_path: Path, shots: tuple[tuple[float, str], ...]) -> None:
    request = replace(REQUEST, later_prompts=shots)
    whole = await undisturbed(tmp_path / "whole", request)
    stages, gate = gated()
    async with over(tmp_path / "broken", stages) as made:
        job = made.queue.add(request)
        first = made.worker()
        task = asyncio.create_task(first.run())
        for _ in range(4):
            gate.release()
        await eventually(lambda: len(made.queue.checkpoints) >= 3)
        made.queue.deaf = {"release"}  # as one that is killed: nobody hears of it
        await cancel_and_wait(task)
        await first.drain(grace_s=0)
        made.queue.deaf = set()
        made.queue.rows[job].status = JobStatus.QUEUED  # its lease has ended
        began = stages.denoiser.statistics().chunks
        for _ in range(100):
            gate.release()
        async with made.working():
            [row] = await made.queue.over(job)
        assert row.claim.job.attempts == 2
        chunks = stages.config.grid.chunk_from(48)
        assert stages.denoiser.statistics().chunks - began <= chunks - 3
        assert await made.video(job) == whole
        assert row.finished is not None
        assert row.finished.usage.frames == 48
        assert len(await made.keys()) == 3


async def test_a_checkpoint_that_cannot_be_read_costs_time_and_nothing_else(tmp_path: Path) -> None:
    whole = await undisturbed(tmp_path / "whole")
    stages, gate = gated()
    async with over(tmp_path / "broken", stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working():
            for _ in range(3):
                gate.release()
            await eventually(lambda: bool(made.queue.checkpoints))
        await made.artifacts.delete([made.queue.checkpoints[-1].record])
        for _ in range(100):
            gate.release()
        async with made.working():
            await made.queue.over(job)
        assert await made.video(job) == whole


async def test_a_worker_that_stops_gives_its_job_back_at_the_end_of_its_chunk(tmp_path: Path) -> None:
    whole = await undisturbed(tmp_path / "whole")
    stages, gate = gated()
    async with over(tmp_path / "two", stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working(SLOW):
            for _ in range(2):
                gate.release()
            await eventually(lambda: made.queue.rows[job].frames_done > 0)
            gate.release()
        row = made.queue.rows[job]
        assert (row.status, row.released) == (JobStatus.QUEUED, 1)
        assert row.claim.checkpoint is not None
        for _ in range(100):
            gate.release()
        async with made.working(SLOW):
            await made.queue.over(job)
        assert await made.video(job) == whole


async def test_a_cancel_ends_the_job_and_removes_its_files(tmp_path: Path) -> None:
    stages, gate = gated()
    async with over(tmp_path, stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working():
            for _ in range(2):
                gate.release()
            await eventually(lambda: bool(made.queue.checkpoints))
            made.queue.rows[job].cancelling = True
            [row] = await made.queue.over(job)
            assert row.status is JobStatus.CANCELLED
            await eventually(lambda: stages.open_streams == 0)
        assert await made.keys() == []


async def test_a_cancel_in_the_same_process_is_seen_at_once(tmp_path: Path) -> None:
    stages, gate = gated()
    async with over(tmp_path, stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working(replace(POLICY, beat_s=1e9)) as worker:
            gate.release()
            await eventually(lambda: stages.denoiser.statistics().chunks == 1)
            made.queue.rows[job].cancelling = True
            worker.look_at(job)
            await made.queue.over(job)


async def test_a_worker_that_lost_its_job_stops_and_leaves_the_other_ones_files_alone(tmp_path: Path) -> None:
    stages, gate = gated()
    async with over(tmp_path, stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working() as worker:
            for _ in range(2):
                gate.release()
            await eventually(lambda: bool(made.queue.checkpoints))
            made.queue.take_away(job)
            await eventually(lambda: worker.working == 0)
            assert stages.open_streams == 0
        assert made.queue.rows[job].status is JobStatus.RUNNING
        kept = made.queue.checkpoints[-1]
        assert set(await made.keys()) == {*kept.parts, kept.record}


async def test_nothing_is_seen_of_a_job_whose_worker_was_taken_for_dead_before_it_was_done(tmp_path: Path) -> None:
    async with over(tmp_path) as made:
        job = made.queue.add(REQUEST)
        made.queue.deaf = {"complete", "beat"}
        async with made.working() as worker:
            await eventually(lambda: any(name.endswith("video.mp4") for name in map(str, tmp_path.rglob("*.mp4"))))
            made.queue.take_away(job)
            made.queue.deaf = set()
            await eventually(lambda: worker.working == 0)
        assert made.queue.rows[job].finished is None
        assert made.queue.billed == []


async def test_a_table_that_is_away_for_a_while_costs_no_job(tmp_path: Path) -> None:
    whole = await undisturbed(tmp_path / "whole")
    async with over(tmp_path / "away") as made:
        job = made.queue.add(REQUEST)
        made.queue.away = 12
        async with made.working():
            await made.queue.over(job)
        assert await made.video(job) == whole
        assert made.queue.rows[job].claim.job.attempts == 1


async def test_a_request_that_is_at_fault_fails_at_once_with_the_callers_names(tmp_path: Path) -> None:
    async with over(tmp_path) as made:
        doorway = Doorway(Mode.FILE, names={"prompt": "textToVideoParams.text"})
        job = made.queue.add(replace(REQUEST, prompt="word " * 2000), doorway=doorway)
        async with made.working():
            [row] = await made.queue.over(job)
        assert row.error is not None
        assert (row.error.code, row.claim.job.attempts) == ("invalid", 1)
        assert [violation.field for violation in row.error.violations] == ["textToVideoParams.text"]


async def test_stages_that_stay_away_fail_a_job_in_the_end_and_a_defect_at_once(tmp_path: Path) -> None:
    config = FakeStages().config
    down = FakeStages(denoiser=FakeDenoiser(config, fail_after=(0,) * 100), attempts=2)
    async with over(tmp_path / "down", down) as made:
        job = made.queue.add(REQUEST)
        async with made.working():
            [row] = await made.queue.over(job)
        assert row.error is not None
        assert row.error.code == "unavailable"
        assert down.denoiser.statistics().opened == POLICY.tries * 2
    broken = FakeStages(denoiser=FakeDenoiser(config, error=SessionBroken("told to")))
    async with over(tmp_path / "broken", broken) as made:
        job = made.queue.add(REQUEST)
        async with made.working():
            [row] = await made.queue.over(job)
        assert row.error is not None
        assert (row.error.code, row.error.message) == ("internal", f"internal error; job {job}")
        assert await made.keys() == []


async def test_stages_that_fail_now_and_then_cost_no_job_as_long_as_something_comes_of_it(tmp_path: Path) -> None:
    whole = await undisturbed(tmp_path / "whole")
    # Each time a chunk, then nothing for as long as the session has patience.
    stages = FakeStages(denoiser=FakeDenoiser(FakeStages().config, fail_after=(1, 0, 0) * 6), attempts=3)
    async with over(tmp_path / "poor", stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working():
            await made.queue.over(job)
        assert await made.video(job) == whole


async def ignored(_: Event) -> None:
    """A viewer's events."""


async def test_jobs_take_the_slots_that_viewers_leave_and_do_not_stand_in_line(tmp_path: Path) -> None:
    stages, gate = gated()
    async with over(tmp_path, stages, max_sessions=3) as made:
        live = made.core.intake.order(VideoRequest(prompt="x", seconds=1.0, max_lead_seconds=30.0), Doorway(Mode.STREAM))
        viewer = asyncio.create_task(made.core.runner.run(live, ignored, Call()))
        await eventually(lambda: made.core.desk.statistics().live == 1)
        jobs = [made.queue.add(replace(REQUEST, seed=seed)) for seed in range(5)]
        async with made.working() as worker:
            await eventually(lambda: made.core.desk.statistics().live_jobs == 2)
            await asyncio.sleep(0.05)  # time for it to do what it must not
            assert worker.working == 2
            assert made.core.desk.statistics().waiting == 0
            assert sum(row.status is JobStatus.QUEUED for row in made.queue.rows.values()) == 3
            for _ in range(1000):
                gate.release()
            await made.queue.over(*jobs)
        await viewer
        assert len({row.finished.sha256 for row in made.queue.rows.values() if row.finished}) == 5


async def test_a_slot_that_a_viewer_took_first_is_waited_for_a_while_and_then_left_to_others(tmp_path: Path) -> None:
    stages, _ = gated()
    async with over(tmp_path, stages, max_sessions=1) as made:
        live = made.core.intake.order(VideoRequest(prompt="x", seconds=1.0, max_lead_seconds=1.0), Doorway(Mode.STREAM))
        viewer = asyncio.create_task(made.core.runner.run(live, ignored, Call()))
        await eventually(lambda: made.core.desk.statistics().live == 1)
        job = made.queue.add(REQUEST)
        worker = made.worker()
        assert not made.core.runner.has_room(stages.config.name)
        for claimed in await made.queue.claim("w", 0.0, 60.0, 1):  # as if the viewer had come just now
            worker._begin(claimed)  # noqa: SLF001 - the moment between claim and slot
        await eventually(lambda: made.queue.rows[job].released == 1)
        await eventually(lambda: worker.working == 0)
        await cancel_and_wait(viewer)


async def test_an_upload_is_read_from_the_store_also_when_the_job_begins_anew(tmp_path: Path) -> None:
    config = replace(FakeStages().config, media=("image",))
    stages = FakeStages(denoiser=FakeDenoiser(config, fail_after=(0, 0)), config=config, attempts=1)
    async with over(tmp_path, stages) as made:
        key = await made.files.put_upload("job000000001", encoded(picture(), "PNG"))
        with_image, without = made.queue.add(REQUEST, upload=UploadRef("image", key)), made.queue.add(REQUEST)
        async with made.working(replace(POLICY, tries=1000)):  # the process that decodes may be slow to start
            await made.queue.over(with_image, without)
        assert await made.video(with_image) != await made.video(without)
        assert len(await made.keys()) == 6  # and not the upload


async def test_the_file_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    async with over(tmp_path) as made:
        job = made.queue.add(replace(REQUEST, seconds=0.5), presentation=Presentation(320, 180))
        async with made.working():
            await made.queue.over(job)
        with av.open(io.BytesIO(await made.video(job)), "r") as file:
            assert (file.streams.video[0].width, file.streams.video[0].height) == (320, 180)


class Bucket:
    """A `Destinations` that is away once, and then takes the file or refuses it."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.calls = 0
        self.refuses = refuses
        self.got: list[tuple[str, int]] = []

    async def deliver(self, job: Job, destination: Destination, file: RenderedFile) -> None:
        self.calls += 1
        if self.calls == 1:
            raise StageUnavailable("S3 is away")
        if self.refuses:
            raise DestinationRefused("the bucket b does not take the files: AccessDenied")
        self.got.append((destination.uri, file.size_bytes))


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_callers_bucket_gets_the_file_or_fails_the_job(tmp_path: Path, *, refuses: bool) -> None:
    bucket = Bucket(refuses=refuses)
    async with over(tmp_path) as made:
        job = made.queue.add(REQUEST, destination=Destination("s3://b/p"))
        async with made.working(destinations=bucket):
            [row] = await made.queue.over(job)
    assert bucket.calls == 2
    if refuses:
        assert row.error is not None
        assert (row.error.code, bucket.got) == ("destination", [])
    else:
        assert row.finished is not None
        assert bucket.got == [("s3://b/p", row.finished.size_bytes)]


async def test_a_server_without_buckets_says_so(tmp_path: Path) -> None:
    async with over(tmp_path) as made:
        job = made.queue.add(REQUEST, destination=Destination("s3://b/p"))
        async with made.working():
            [row] = await made.queue.over(job)
        assert row.error is not None
        assert row.error.code == "destination"


async def test_a_job_of_a_model_that_is_not_served_here_is_left_to_others(tmp_path: Path) -> None:
    async with over(tmp_path) as made:
        job, row = (job := made.queue.add(REQUEST)), made.queue.rows[job]
        row.claim = replace(row.claim, job=replace(row.claim.job, model="another"))
        async with made.working():
            await eventually(lambda: row.released > 0)
        assert row.error is None


async def test_a_worker_that_has_nothing_asks_now_and_then_and_is_woken(tmp_path: Path) -> None:
    async with over(tmp_path) as made, made.working(replace(POLICY, look_s=1e9)) as worker:
        await asyncio.sleep(0.01)
        job = made.queue.add(replace(REQUEST, seconds=0.5))
        worker.wake()
        await made.queue.over(job)


def test_the_policy_hears_of_a_cancel_within_half_a_second() -> None:
    assert WorkPolicy().beat_s <= 0.5
    assert WorkPolicy().lease_s > 10 * WorkPolicy().beat_s

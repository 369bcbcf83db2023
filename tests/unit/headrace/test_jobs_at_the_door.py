"""The client of `headrace jobs` at the real HTTP door: both mean the same API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.jobs import JobsClient, JobsError
from service.intake import Intake
from tests.http_served import http_serving
from tests.unit.doors.http.fake_jobs import FakeJobDesk


async def test_a_job_from_its_submission_to_its_file(tmp_path: Path) -> None:
    desks: list[FakeJobDesk] = []

    def desk(intake: Intake) -> FakeJobDesk:
        desks.append(FakeJobDesk(intake, tmp_path))
        return desks[0]

    async with http_serving(jobs=desk) as served:
        client = JobsClient(f"http://127.0.0.1:{served.port}", "any")
        wish = {"prompt": "a red circle", "seconds": 2.0, "seed": 7, "width": 320, "height": 180, "labels": {"a": "b"}}
        job = await asyncio.to_thread(client.submit, wish, "key")
        assert (await asyncio.to_thread(client.submit, wish, "key")).id == job.id
        assert (job.status, job.frames_total, job.told["labels"]) == ("queued", 48, {"a": "b"})
        found, more = await asyncio.to_thread(client.list)
        assert ([each.id for each in found], more) == ([job.id], False)
        with pytest.raises(JobsError) as early:
            await asyncio.to_thread(client.fetch, job.id, tmp_path / "out.mp4")
        assert early.value.status == 409
        desks[0].start(job.id.removeprefix("job_"), frames_done=24)
        desks[0].complete(job.id.removeprefix("job_"), b"an MP4")
        assert (await asyncio.to_thread(client.get, job.id)).over
        assert await asyncio.to_thread(client.fetch, job.id, tmp_path / "out.mp4") == 6
        assert (tmp_path / "out.mp4").read_bytes() == b"an MP4"
        assert (await asyncio.to_thread(client.cancel, job.id)).status == "completed"
        with pytest.raises(JobsError, match=r"seconds: must be .* got 999"):
            await asyncio.to_thread(client.submit, {**wish, "seconds": 999})
        with pytest.raises(JobsError) as unknown:
            await asyncio.to_thread(client.get, "job_000000000000")
        assert unknown.value.status == 404

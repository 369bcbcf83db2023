"""Jobs on a real cluster: a front door that dies is replaced, and the job goes on in it to the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.faults.jobs import desk_of, truths
from deployments.cluster.local import free_port, start_local
from deployments.config.names import FRONT_DOOR
from service.identity.principal import NOBODY
from service.jobs.files.artifacts import result_key
from service.jobs.job import JobStatus, NewJob, Presentation, Variant
from service.orders import Doorway, Mode, VideoRequest
from tests.fakes import FakeStages
from tests.ray.clusters import PATIENCE_S, Cluster, kill, overrides
from tests.ray.fake_stages import HOLD_ENGINE

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SECONDS = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("state")
    base = overrides(folder, free_port())
    args = {
        **base.args, "state": {"url": f"sqlite:///{folder}/headrace.db"}, "artifacts": {"folder": f"{folder}/files"},
        "jobs": {"lease_seconds": 4.0, "checkpoint_seconds": 0.2, "at_once": 2},
    }  # fmt: skip
    with start_local(None, replace(base, args=args)) as app:
        cluster = Cluster(app, folder)
        yield cluster
        cluster.close()


async def test_a_job_outlives_the_front_door_that_worked_on_it(cluster: Cluster) -> None:
    stages = FakeStages()
    news = [
        NewJob(
            door="own", doorway=Doorway(Mode.FILE), presentation=Presentation(96, 64),
            request=VideoRequest(prompt="a red circle", seconds=SECONDS, seed=seed),
        )
        for seed in range(3)
    ]  # fmt: skip
    asked = [replace(new, request=replace(new.request, steps=stages.config.num_steps)) for new in news]
    expected = await truths(stages.pipeline, asked)
    url, files = f"sqlite:///{cluster.folder}/headrace.db", cluster.folder / "files"
    async with desk_of(url, files, stages.config) as (desk, _, artifacts), asyncio.timeout(2 * PATIENCE_S):
        (cluster.folder / HOLD_ENGINE).touch()  # none is done before the front door dies
        made = [(await desk.submit(NOBODY, new)).id for new in news]
        while not any([(await desk.get(NOBODY, job_id)).frames_done for job_id in made]):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.02)
        before = [await cluster.until_one(FRONT_DOOR)]
        for pid in before:
            kill(pid)
        (cluster.folder / HOLD_ENGINE).unlink()
        jobs = [await desk.until_over(NOBODY, job_id, PATIENCE_S) for job_id in made]
        assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 3, [job.error for job in jobs]
        assert [job.sha256 for job in jobs] == expected
        assert max(job.attempts for job in jobs) >= 2  # more where a worker stood still for the time of a lease
        for job in jobs:
            assert (await artifacts.read(result_key(job.id, job.sha256, Variant.VIDEO)))[4:8] == b"ftyp"
        wanted = {result_key(job.id, job.sha256, variant) for job in jobs for variant in Variant}
        while {file.key for file in await artifacts.listed("jobs/")} != wanted:  # noqa: ASYNC110 - other processes remove them
            await asyncio.sleep(0.05)


async def test_a_job_is_cancelled_at_any_front_door(cluster: Cluster, tmp_path: Path) -> None:
    stages = FakeStages()
    url, files = f"sqlite:///{cluster.folder}/headrace.db", cluster.folder / "files"
    new = NewJob(door="own", doorway=Doorway(Mode.FILE), request=VideoRequest(prompt="a red circle", seconds=SECONDS, seed=9))
    async with desk_of(url, files, stages.config) as (desk, _, artifacts), asyncio.timeout(PATIENCE_S):
        (cluster.folder / HOLD_ENGINE).touch()
        job_id = (await desk.submit(NOBODY, new)).id
        while not (await desk.get(NOBODY, job_id)).frames_done:  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.02)
        await desk.cancel(NOBODY, job_id)
        job = await desk.until_over(NOBODY, job_id, PATIENCE_S)
        assert job.status is JobStatus.CANCELLED
        (cluster.folder / HOLD_ENGINE).unlink()
        await cluster.until_free("Denoiser")
        while await artifacts.listed(f"jobs/{job_id}/"):  # noqa: ASYNC110 - another process removes them
            await asyncio.sleep(0.05)

"""A replica that is told to stop gives its sessions away at a chunk boundary; callers who leave at random moments leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.faults.cancels import Inspector, storm
from deployments.cluster.local import Overrides, free_port, start_local
from model_core.presets import millrace_64
from tests.ray.clusters import PATIENCE_S, Cluster, as_expected, overrides, play, redeploy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PROMPT = "a red circle moving left"
GRACE_S = 2 * PATIENCE_S  # a replica that hands nothing over would stay this long


def settings(folder: Path, ports: tuple[int, int, int], replicas: int, cpus: float) -> Overrides:
    """`replicas` denoisers; another share of `cpus` makes Serve replace them."""
    base = overrides(folder, ports[0])
    pinned = {
        "autoscaling_config": None,
        "num_replicas": replicas,
        "ray_actor_options": {"num_cpus": cpus},
        "graceful_shutdown_timeout_s": GRACE_S,
    }
    base = replace(base, metrics_port=ports[1], http_port=ports[2])  # another port would be another front door
    return replace(base, args={**base.args, "admission": {"mode": "none"}}, deployments={"Denoiser": pinned})


@pytest.fixture(scope="module")
def ports() -> tuple[int, int, int]:
    return free_port(), free_port(), free_port()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int, int]) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("flags")
    with start_local(None, settings(folder, ports, 2, 0.01)) as app:
        cluster = Cluster(app, folder)
        yield cluster
        cluster.close()


async def pids(cluster: Cluster) -> set[int]:
    return await cluster.pids("Denoiser")


@pytest.mark.parametrize(("replicas", "cpus"), [(2, 0.02), (1, 0.02)], ids=["redeployed", "scaled down"])
async def test_draining_denoisers_loses_no_frame_and_waits_for_no_stream(
    cluster: Cluster, ports: tuple[int, int, int], replicas: int, cpus: float
) -> None:
    over = asyncio.Event()
    made: dict[int, list[bytes]] = {n: [] for n in range(4)}
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as players:
        while len(before := await pids(cluster)) != 2:  # noqa: ASYNC110 - this process hears of replicas late
            await asyncio.sleep(0.05)
        for seed, frames in made.items():
            players.create_task(play(cluster, PROMPT, seed, over, frames))
        while not all(made.values()):  # noqa: ASYNC110 - four writers
            await asyncio.sleep(0.05)
        await asyncio.to_thread(redeploy, settings(cluster.folder, ports, replicas, cpus))
        while len(after := await pids(cluster)) != replicas or (replicas == 2 and after & before):  # noqa: ASYNC110 - Serve works
            await asyncio.sleep(0.1)
        over.set()
    for seed, frames in made.items():
        assert await as_expected(frames, PROMPT, seed)


async def test_callers_that_leave_at_random_moments_leave_nothing(cluster: Cluster) -> None:
    inspector = Inspector()
    try:
        report = await storm(
            cluster.app.address,
            inspector,
            calls=60,
            slow_readers=5,
            at_once=8,
            steps=millrace_64().num_steps,
            seed=3,
            within_s=PATIENCE_S,
        )
    finally:
        inspector.close()
    assert report.left == ()
    assert sum(report.calls.values()) == 60

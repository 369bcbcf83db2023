"""A replica that is told to stop gives its sessions away at a chunk boundary; callers who leave at random moments leave nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.faults.cancels import Inspector, storm
from deployments.cluster.local import Overrides, free_port, start_local
from model_core.presets import millrace_64
from tests.ray.clusters import PATIENCE_S, Cluster, expected, overrides, redeploy, stream

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

PROMPT = "a red circle moving left"
SECONDS = 40.0
GRACE_S = 60.0  # a replica that hands nothing over would stay this long


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
    before = await pids(cluster)
    assert len(before) == 2
    made: dict[int, list[bytes]] = {n: [] for n in range(4)}

    async def play(seed: int) -> None:
        async with cluster.client() as client:
            async for chunk in stream(client, PROMPT, seed=seed, seconds=SECONDS, max_lead_s=1.0):
                made[seed] += chunk.data

    async with asyncio.timeout(PATIENCE_S + SECONDS):
        players = [asyncio.create_task(play(n)) for n in made]
        while not all(made.values()):  # noqa: ASYNC110 - four writers
            await asyncio.sleep(0.05)
        deployed = time.monotonic()
        await asyncio.to_thread(redeploy, settings(cluster.folder, ports, replicas, cpus))
        while len(after := await pids(cluster)) != replicas or (replicas == 2 and after & before):  # noqa: ASYNC110 - Serve works
            await asyncio.sleep(0.1)
        drained = time.monotonic() - deployed
        assert not any(player.done() for player in players), "the sessions were over before the drain was"
        await asyncio.gather(*players)
    assert drained < GRACE_S / 2
    for seed, frames in made.items():
        assert frames == await expected(PROMPT, seed=seed, seconds=SECONDS)


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
            within_s=PATIENCE_S / 10,
        )
    finally:
        inspector.close()
    assert report.left == ()
    assert sum(report.calls.values()) == 60

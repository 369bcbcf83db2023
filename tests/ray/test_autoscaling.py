"""The scaling policy on a real cluster: up under sessions, down without losing a frame of those that go on, to zero and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from deployments.cluster.local import Overrides, free_port, start_local
from tests.ray.clusters import PATIENCE_S, Cluster, as_expected, expected, frames, overrides, play, redeploy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PROMPT = "a green star moving up"
SLOTS = 2  # sessions that a denoiser says it can hold

QUICK = {"upscale_delay_s": 0, "downscale_delay_s": 0, "metrics_interval_s": 0.2, "look_back_period_s": 1}
PACE = {
    "interval_seconds": 0.2, "replica_start_seconds": 0.5, "z": 0, "burst_k": 0, "panic_hold_seconds": 0,
    "fast_window_seconds": 1, "stable_window_seconds": 2, "down_window_seconds": 3, "zero_after_seconds": 3, "session_seconds": 10,
}  # fmt: skip


def scaled(least: int, most: int) -> dict[str, object]:
    return {
        "autoscaling_config": {**QUICK, "min_replicas": least, "max_replicas": most, "initial_replicas": 1},
        "ray_actor_options": {"num_cpus": 0.01},
        "graceful_shutdown_timeout_s": PATIENCE_S,  # a replica that hands nothing over would stay this long
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Overrides:
    folder = tmp_path_factory.mktemp("flags")
    base = replace(overrides(folder, free_port()), metrics_port=free_port(), http_port=free_port())
    args = {**base.args, "admission": {"mode": "none"}, "engine": {"slots": SLOTS, "batch_buckets": [1, 2]}, "scale_to_zero": True}
    blocks = {"TextEncoder": scaled(1, 1), "Denoiser": scaled(0, 3), "Decoder": scaled(0, 2), "FrontDoor": scaled(1, 1)}
    return replace(base, args=args, deployments=blocks, scaling=PACE)


@pytest.fixture(scope="module")
def cluster(settings: Overrides, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_local(None, settings) as app:
        cluster = Cluster(app, tmp_path_factory.getbasetemp())
        yield cluster
        cluster.close()


async def replicas(cluster: Cluster, deployment: str, number: int) -> None:
    """Wait until it has so many."""
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(cluster.running, deployment) != number:  # noqa: ASYNC110 - Serve works
            await asyncio.sleep(0.1)


async def told(cluster: Cluster, service: str, state: str) -> None:
    """Wait until health says so."""
    async with asyncio.timeout(PATIENCE_S), cluster.client() as client:
        while await client.health(service) != state:  # noqa: ASYNC110 - the front door asks Serve
            await asyncio.sleep(0.1)


async def test_stages_follow_the_sessions_and_no_frame_is_lost(cluster: Cluster) -> None:
    made: dict[int, list[bytes]] = {seed: [] for seed in range(1, 6)}
    busy, over = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as players:
        for seed, frames_of in made.items():
            players.create_task(play(cluster, PROMPT, seed, over if seed == 1 else busy, frames_of))
        await replicas(cluster, "Denoiser", 3)
        busy.set()  # four of them end
        await replicas(cluster, "Denoiser", 1)
        over.set()
    for seed, got in made.items():
        assert await as_expected(got, PROMPT, seed)

    await replicas(cluster, "Denoiser", 0)
    await replicas(cluster, "Decoder", 0)
    await told(cluster, "replica/denoiser", "NOT_SERVING")
    await told(cluster, "stage/denoiser", "SERVING")
    async with cluster.client() as client:
        assert await frames(client, PROMPT, seed=9, seconds=1.0) == await expected(PROMPT, seed=9, seconds=1.0)


async def test_a_setting_of_the_policy_changes_under_a_stream_and_no_replica_is_replaced(cluster: Cluster, settings: Overrides) -> None:
    made, over = list[bytes](), asyncio.Event()
    playing = asyncio.create_task(play(cluster, PROMPT, 11, over, made))
    before = await one_each(cluster)
    await asyncio.to_thread(redeploy, replace(settings, scaling={**PACE, "burst_sessions": 3 * SLOTS}))
    await replicas(cluster, "Denoiser", 3)  # room for a burst: the policy has heard
    async with asyncio.timeout(PATIENCE_S):  # one that is busy may answer late
        while True:
            after = await processes(cluster)
            if all(of <= after[name] for name, of in before.items()):
                break
            await asyncio.sleep(0.1)
    await asyncio.to_thread(redeploy, settings)
    assert await one_each(cluster) == before
    over.set()
    await playing
    assert await as_expected(made, PROMPT, 11)


async def one_each(cluster: Cluster) -> dict[str, set[int]]:
    """Wait until each deployment has one replica: none that starts, and none left over from before. Their processes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await processes(cluster)
            running = [await asyncio.to_thread(cluster.running, name) for name in found]
            if all(len(of) == number == 1 for of, number in zip(found.values(), running, strict=True)):
                return found
            await asyncio.sleep(0.1)


async def processes(cluster: Cluster) -> dict[str, set[int]]:
    """Ids of the processes of each deployment."""
    names = ("TextEncoder", "Denoiser", "Decoder", "FrontDoor")
    return {name: await cluster.pids(name) for name in names}

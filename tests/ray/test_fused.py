"""All three stages in one replica, behind the same front door."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployments.cluster.local import start_local
from tests.ray.clusters import Cluster, expected, frames, overrides, stream

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PROMPT = "a red circle moving left"
STAGES = ("FusedPipeline",)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("flags")
    with start_local(None, overrides(folder, 0, fused=True)) as app:
        cluster = Cluster(app, folder)
        yield cluster
        cluster.close()


async def test_frames_are_those_of_the_pipeline_in_one_process(cluster: Cluster) -> None:
    async with cluster.client() as client:
        assert await client.health() == "SERVING"
        made = await frames(client, PROMPT, seed=7, seconds=2.1)
    assert made == await expected(PROMPT, seed=7, seconds=2.1)


async def test_a_cancelled_call_frees_every_stage(cluster: Cluster) -> None:
    async with cluster.client() as client:
        call = stream(client, PROMPT, seed=1, seconds=600.0)
        await anext(call)
        await cluster.until_open(1, 1, 1, of=STAGES)
        await call.aclose()
        await cluster.until_free(*STAGES)

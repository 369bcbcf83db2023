"""The enhancer as a deployment of its own: started when somebody asks, replaced when it dies, with equal frames."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from deployments.cluster.local import start_local
from headrace.v1 import video_pb2 as pb
from model_core.enhancement import Enhancement
from model_core.pipeline import SessionRequest
from model_core.types import FrameChunk
from tests.fakes import FakeStages
from tests.ray.clusters import PATIENCE_S, Cluster, kill, overrides

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PROMPT = "a red circle moving left"
BOTH = pb.Enhance(frames=2, size=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("flags")
    plain = overrides(folder, 0)
    with start_local(None, replace(plain, args={**plain.args, "enhancer": {}})) as app:
        cluster = Cluster(app, folder)
        yield cluster
        cluster.close()


async def local(seconds: float) -> list[bytes]:
    """The same session in this process."""
    stages = FakeStages(enhances=True)
    request = SessionRequest(
        "local", PROMPT, 7, stages.config.num_steps, 2 * round(seconds * stages.config.fps), enhance=Enhancement(frames=2, size=2)
    )
    session = await stages.pipeline.open(request)
    made: list[bytes] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            made += event.data if isinstance(event, FrameChunk) else []
    return made


async def test_it_starts_when_somebody_asks_outlives_its_replica_and_shows_a_session_again(cluster: Cluster) -> None:
    seconds, made, token, killed = 4.0, list[bytes](), "", False
    async with asyncio.timeout(2 * PATIENCE_S), cluster.client() as client:
        assert cluster.running("Enhancer") == 0
        assert len([event async for event in client.stream(PROMPT, seconds=0.3, seed=1)]) > 1, "others are served without it"
        assert cluster.running("Enhancer") == 0
        stream = client.stream(PROMPT, seconds=seconds, seed=7, enhance=BOTH, max_lead_s=1.0)
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, pb.Started):
                    token = event.resume_token
                    assert (event.fps, event.width) == (48, 128)
                if isinstance(event, pb.Frames):
                    made += [bytes(data) for data in event.data]
                    if not killed:
                        killed = True
                        kill(await cluster.until_one("Enhancer"))
        assert made == await local(seconds)
        again = [event async for event in client.replay(token, seconds=1.0, slow=2)]
        shown = [bytes(data) for event in again if isinstance(event, pb.Frames) for data in event.data]
        assert shown == made[-2 * 24 :], "twice the frames, two times slower"

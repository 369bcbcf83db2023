"""Two front doors on one port with Redis behind them: the one that serves is killed, and the viewer sees only a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.cluster.local import free_port, start_local
from headrace.client import HeadraceClient, Reconnect
from headrace.v1 import video_pb2 as pb
from tests.pictures import encoded, picture
from tests.ray.clusters import PATIENCE_S, Cluster, expected, kill, overrides, peers
from tests.stores import REDIS_SERVER, WITHOUT_REDIS, redis_server

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180), pytest.mark.skipif(REDIS_SERVER is None, reason=WITHOUT_REDIS)]

PROMPT, OTHER = "a red circle moving left", "a blue square"
RECONNECT = Reconnect(give_up_after_s=PATIENCE_S)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("resume")
    with redis_server(folder) as store:
        base = overrides(folder, free_port())
        chosen = replace(
            base,
            args={**base.args, "session_store": {"url": store.url}},
            deployments={"FrontDoor": {"autoscaling_config": {"min_replicas": 2, "max_replicas": 2, "target_ongoing_requests": 1}}},
        )
        with start_local(None, chosen) as app:
            running = Cluster(app, folder)
            yield running
            running.close()


def serving_door(cluster: Cluster) -> int:
    """The process at the other end of this process's one connection to the front doors."""
    (pid,) = peers(int(cluster.app.address.rsplit(":", 1)[1]))
    return pid


async def test_a_stream_that_was_given_an_image_survives_its_front_door(cluster: Cluster) -> None:
    image = encoded(picture())
    made: list[bytes] = []
    victims: list[int] = []
    async with asyncio.timeout(PATIENCE_S), HeadraceClient(cluster.app.address) as client:
        stream = client.stream(PROMPT, seconds=12.0, seed=21, image=image, max_lead_s=1.0, reconnect=RECONNECT)
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, pb.Frames):
                    assert event.first_frame == len(made)
                    made += event.data
                    if event.chunk_index in (6, 20):
                        victims.append(serving_door(cluster))
                        kill(victims[-1])
    assert len(set(victims)) == 2
    assert made == await expected(PROMPT, seed=21, seconds=12.0, image=image)


async def test_a_live_session_survives_its_front_door_right_after_a_prompt_was_acknowledged(cluster: Cluster) -> None:
    made: list[bytes] = []
    switched_at: int | None = None
    async with asyncio.timeout(PATIENCE_S), HeadraceClient(cluster.app.address) as client:  # noqa: SIM117 - one line is too long
        async with client.live(PROMPT, seconds=6.0, seed=22, max_lead_s=0.5, reconnect=RECONNECT) as session:
            async for event in session:
                if isinstance(event, pb.Frames):
                    assert event.first_frame == len(made)
                    made += event.data
                    if event.chunk_index == 4:
                        await session.set_prompt(OTHER)
                elif isinstance(event, pb.PromptAck):
                    assert switched_at is None, "acknowledged once"
                    switched_at = event.first_frame
                    kill(serving_door(cluster))
    assert switched_at is not None
    assert made == await expected(PROMPT, seed=22, seconds=6.0, switch=(switched_at, OTHER))

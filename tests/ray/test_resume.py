"""Two front doors on one port with Redis behind them: the one that serves is killed, and the viewer sees only a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
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


async def view(client: HeadraceClient, token: str, shown: list[bytes]) -> None:
    """Put the frames into `shown` by their number, from the first that comes; what was left out is empty."""
    first: int | None = None
    async with aclosing(client.watch(token, reconnect=RECONNECT)) as events:
        async for event in events:
            if isinstance(event, pb.Started):
                first = event.next_frame
            elif isinstance(event, pb.Frames) and first is not None:
                shown += [b""] * (event.first_frame - first - len(shown))
                shown += event.data


async def at_both_doors(stack: AsyncExitStack, cluster: Cluster, token: str) -> list[tuple[asyncio.Task[None], list[bytes]]]:
    """Viewers at both front doors: the kernel spreads connections over them."""
    port, viewers = int(cluster.app.address.rsplit(":", 1)[1]), list[tuple[asyncio.Task[None], list[bytes]]]()
    while len(peers(port)) < 2 or len(viewers) < 3:
        client, shown = await stack.enter_async_context(HeadraceClient(cluster.app.address)), list[bytes]()
        viewers.append((asyncio.create_task(view(client, token, shown)), shown))
        while not shown:
            if viewers[-1][0].done():
                viewers[-1][0].result()
            await asyncio.sleep(0.05)
    return viewers


async def test_viewers_at_either_front_door_see_the_session_and_outlive_the_one_that_runs_it(cluster: Cluster) -> None:
    whole, made, victim = await expected(PROMPT, seed=23, seconds=20.0), list[bytes](), 0
    watching: asyncio.Task[list[tuple[asyncio.Task[None], list[bytes]]]] | None = None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        owner = await stack.enter_async_context(HeadraceClient(cluster.app.address))
        own = owner.stream(PROMPT, seconds=20.0, seed=23, codec=pb.CODEC_RAW_RGB, max_lead_s=1.0, reconnect=RECONNECT)
        async for event in await stack.enter_async_context(aclosing(own)):
            if isinstance(event, pb.Started):
                victim = serving_door(cluster)
                watching = asyncio.create_task(at_both_doors(stack, cluster, event.watch_token))
            elif isinstance(event, pb.Frames):
                made += event.data
                if victim and watching is not None and watching.done() and event.chunk_index >= 12:
                    kill(victim)
                    victim = 0
        assert watching is not None
        viewers = await watching
        await asyncio.gather(*(task for task, _ in viewers))
    assert (made, victim) == (whole, 0)
    for _, shown in viewers:
        assert [frame for frame, right in zip(reversed(shown), reversed(whole), strict=False) if frame not in (right, b"")] == []
        assert len(shown) > len(whole) // 2
        assert sum(frame == b"" for frame in shown) < len(whole) // 2

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
from model_core.presets import millrace_64
from tests.pictures import encoded, picture
from tests.ray.clusters import AFTER_S, PATIENCE_S, Cluster, as_expected, expected, kill, overrides, peers
from tests.stores import REDIS_SERVER, WITHOUT_REDIS, redis_server

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.skipif(REDIS_SERVER is None, reason=WITHOUT_REDIS)]

PROMPT, OTHER = "a red circle moving left", "a blue square"
FPS = millrace_64().fps
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


async def serving_door(cluster: Cluster) -> int:
    """The process at the other end of this process's one connection to the front doors, once those of before are gone."""
    port = int(cluster.app.address.rsplit(":", 1)[1])
    async with asyncio.timeout(PATIENCE_S):
        while len(found := peers(port)) != 1:  # noqa: ASYNC110 - connections have no event
            await asyncio.sleep(0.01)
    (pid,) = found
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
                        victims.append(await serving_door(cluster))
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
                    kill(await serving_door(cluster))
    assert switched_at is not None
    assert made == await expected(PROMPT, seed=22, seconds=6.0, switch=(switched_at, OTHER))


class Viewer:
    """Whoever watches: `frames` by their number, from `first` on; what was left out is empty."""

    def __init__(self, client: HeadraceClient, token: str) -> None:
        self.first: int | None = None
        self.frames: list[bytes] = []
        self.task = asyncio.create_task(self._view(client, token))

    @property
    def seen(self) -> int:
        """The number of the first frame that has not come."""
        return (self.first or 0) + len(self.frames)

    async def _view(self, client: HeadraceClient, token: str) -> None:
        async with aclosing(client.watch(token, reconnect=RECONNECT)) as events:
            async for event in events:
                if isinstance(event, pb.Started):
                    self.first = event.next_frame
                elif isinstance(event, pb.Frames) and self.first is not None:
                    self.frames += [b""] * (event.first_frame - self.seen)
                    self.frames += event.data


async def at_both_doors(stack: AsyncExitStack, cluster: Cluster, token: str) -> list[Viewer]:
    """Viewers at both front doors: the kernel spreads connections over them."""
    port, viewers = int(cluster.app.address.rsplit(":", 1)[1]), list[Viewer]()
    while len(peers(port)) < 2 or len(viewers) < 3:
        viewers.append(Viewer(await stack.enter_async_context(HeadraceClient(cluster.app.address)), token))
        while not viewers[-1].frames:
            if viewers[-1].task.done():
                viewers[-1].task.result()
            await asyncio.sleep(0.05)
    return viewers


async def test_viewers_at_either_front_door_see_the_session_and_outlive_the_one_that_runs_it(cluster: Cluster) -> None:
    made, victim, killed_at, stopped = list[bytes](), 0, 0, False
    watching: asyncio.Task[list[Viewer]] | None = None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        owner = await stack.enter_async_context(HeadraceClient(cluster.app.address))
        live = owner.live(PROMPT, seed=23, codec=pb.CODEC_RAW_RGB, max_lead_s=1.0, reconnect=RECONNECT)
        session = await stack.enter_async_context(live)
        async for event in session:
            if isinstance(event, pb.Started):
                victim = await serving_door(cluster)
                watching = asyncio.create_task(at_both_doors(stack, cluster, event.watch_token))
            elif isinstance(event, pb.Frames):
                made += event.data
            if watching is None or not watching.done() or stopped:
                continue
            viewers = watching.result()
            if not killed_at:
                kill(victim)
                killed_at = len(made)
            elif all(viewer.seen > killed_at + AFTER_S * FPS for viewer in viewers):
                await session.stop()
                stopped = True
        await asyncio.gather(*(viewer.task for viewer in viewers))
    assert await as_expected(made, PROMPT, 23)
    for viewer in viewers:
        shown = list(zip(viewer.frames, made[viewer.first :], strict=False))
        assert [frame for frame, right in shown if frame not in (right, b"")] == []
        assert viewer.seen == len(made), "up to the last frame"
        assert viewer.frames[0]
        assert any(viewer.frames[killed_at - (viewer.first or 0) :])

"""The application under Ray's real autoscaler: nodes come with the load and go with it, and no session notices.

The cloud is fake, its nodes are real Ray nodes of this machine, the stages are fake and take NeuronCores as Ray counts them. One
application goes through all scenarios, each of which begins with nothing: no accelerator node, no denoiser, no decoder.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from deployments.cluster.local import Overrides, free_port, start_local
from headrace.client import HeadraceClient
from tests.cluster.cloud import Cloud, NodeType
from tests.cluster.timeline import STAGES, Timeline, places, running, until
from tests.ray.clusters import Cluster, expected, overrides, stream

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nodes are ended by what /proc says of them"),
    # Ray reads the token once, when it is loaded.
    pytest.mark.skipif("RAY_AUTH_TOKEN" not in os.environ, reason="run by `make test-cluster`, which gives the cluster a token of its own"),
]

PATIENCE_S = 120.0  # only bounds a failing test
PROMPT = "a red circle moving left"
FPS = 6
FAKE_FPS = 24  # at which `expected` counts seconds
CORES = 4  # on a node; a denoiser takes two, a decoder one
SLOTS = 4  # sessions on a replica
CAP = 2  # nodes that the policy may hold, though the cloud has more
SPOT, PAID = "trn2-spot", "trn2"
NODE_TYPES = {name: NodeType({"CPU": 1, "neuron_cores": CORES, name: 1}, max_workers=2) for name in (SPOT, PAID)}


def settings(cloud: Cloud, folder: Path) -> Overrides:
    base = overrides(folder, free_port())
    scaled = {
        "min_replicas": 0, "max_replicas": 8, "upscale_delay_s": 0, "downscale_delay_s": 0,
        "metrics_interval_s": 0.5, "look_back_period_s": 2, "target_ongoing_requests": SLOTS,
    }  # fmt: skip
    pinned = {**scaled, "min_replicas": 1, "max_replicas": 1}
    return Overrides(
        grpc_port=base.grpc_port, metrics_port=free_port(), address=cloud.address, env=base.env,
        args={
            **base.args, "fps": FPS, "scale_to_zero": True, "link_host": "127.0.0.1", "admission": {"mode": "none"},
            "engine": {"slots": SLOTS, "batch_buckets": [1, 2, 4]}, "front_door": {"max_sessions": 64, "http": {"port": None}},
        },
        deployments={
            "TextEncoder": {"ray_actor_options": {"num_cpus": 0.1}, "autoscaling_config": pinned},
            "FrontDoor": {"ray_actor_options": {"num_cpus": 0.1}, "autoscaling_config": pinned},
            "Denoiser": {"ray_actor_options": {"num_cpus": 0, "resources": {"neuron_cores": 2}}, "autoscaling_config": scaled},
            "Decoder": {"ray_actor_options": {"num_cpus": 0, "resources": {"neuron_cores": 1}}, "autoscaling_config": scaled},
        },
        scaling={
            "interval_seconds": 0.5, "replica_start_seconds": 5, "burst_k": 1, "fast_window_seconds": 5, "stable_window_seconds": 20,
            "panic_hold_seconds": 3, "down_window_seconds": 5, "zero_after_seconds": 6, "session_seconds": 20, "fill_nodes": False,
            "nodes": {
                "pools": [{"name": name, "max_nodes": t.max_workers} for name, t in NODE_TYPES.items()], "max_nodes": CAP,
                "units": CORES, "replica_units": {"denoiser": 2, "decoder": 1}, "start_seconds": 5, "retry_seconds": 15,
            },
        },
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stand:
    """The application and the cloud it runs on."""

    cloud: Cloud
    cluster: Cluster


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("flags")
    with Cloud(NODE_TYPES, max_workers=4, head={"CPU": 4}) as cloud:
        try:
            app = start_local(None, settings(cloud, folder))
            cluster = Cluster(app, folder)
            yield Stand(cloud, cluster)
            cluster.close()
        finally:
            ray.shutdown()  # the cloud ends with everything on it


@pytest.fixture
async def stand(started: Stand) -> Stand:
    started.cloud.allow(SPOT)
    await until(lambda: nothing(started.cloud), "nothing left of the scenario before", PATIENCE_S)
    return started


def nothing(cloud: Cloud) -> bool:
    return not cloud.nodes() and not any(running(stage) for stage in STAGES)


@dataclass
class Viewer:
    """A session whose frames are kept. It plays until it is stopped."""

    seed: int
    frames: list[bytes] = field(default_factory=list)

    async def play(self, client: HeadraceClient, timeline: Timeline) -> None:
        async with aclosing(stream(client, PROMPT, self.seed, seconds=600.0, max_lead_s=1.0)) as chunks:
            async for chunk in chunks:
                if not self.frames:
                    timeline.note(f"first frame of session {self.seed}")
                assert chunk.first_frame == len(self.frames)
                self.frames += chunk.data

    async def further(self, frames: int) -> None:
        """Wait until so many more frames have come."""
        wanted = len(self.frames) + frames
        await until(lambda: len(self.frames) >= wanted, f"{frames} more frames of session {self.seed}", PATIENCE_S)


@asynccontextmanager
async def playing(stand: Stand, timeline: Timeline, seeds: range) -> AsyncGenerator[list[Viewer], None]:
    """Viewers from their first frames to the end of the block; then they leave, and what they saw is compared with an undisturbed run."""
    viewers = [Viewer(seed) for seed in seeds]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stand.cluster.client()) for _ in viewers]
        tasks = [asyncio.create_task(v.play(c, timeline)) for v, c in zip(viewers, clients, strict=True)]
        try:
            for viewer in viewers:
                await viewer.further(1)
            yield viewers
            assert [task for task in tasks if task.done()] == [], "a session ended by itself"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    for viewer in viewers:
        made = await expected(PROMPT, viewer.seed, len(viewer.frames) / FAKE_FPS)
        assert viewer.frames == made, f"session {viewer.seed} saw other frames than an undisturbed one"


async def replica_places(stand: Stand, deployment: str) -> set[str]:
    return await asyncio.to_thread(places, stand.cloud, await stand.cluster.pids(deployment))


@pytest.fixture
def timeline(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Timeline]:
    """Printed in the end, whatever the verdict."""
    recorded = Timeline()
    yield recorded
    with capsys.disabled():
        sys.stdout.write(recorded.text(request.node.name.removeprefix("test_").replace("_", " ")) + "\n")


async def test_nodes_come_with_the_load_and_go_with_it(stand: Stand, timeline: Timeline) -> None:
    cloud = stand.cloud
    timeline.begin()
    async with timeline.record(cloud):
        timeline.note("two viewers come")
        async with playing(stand, timeline, range(2)) as stayers:
            timeline.note("six more come")
            async with playing(stand, timeline, range(2, 8)) as others:
                await until(lambda: len(cloud.nodes()) == CAP and running("Denoiser") >= 2, "replicas on two nodes", PATIENCE_S)
                assert len(await replica_places(stand, "Denoiser")) == CAP
                await others[-1].further(FPS)
                timeline.note("the six leave")
            await until(lambda: len(cloud.nodes()) == 1 and running("Denoiser") == 1, "one node given back", PATIENCE_S)
            for viewer in stayers:
                await viewer.further(FPS)
            timeline.note("the two leave")
        await until(lambda: nothing(cloud), "back to zero", PATIENCE_S)
        timeline.note("back to zero")
    assert {event.node_type for event in cloud.events("launched")} == {SPOT}


async def test_a_pool_that_cannot_be_had_is_passed_over(stand: Stand, timeline: Timeline) -> None:
    cloud = stand.cloud
    timeline.begin()
    cloud.refuse(SPOT)
    async with timeline.record(cloud):
        timeline.note("two viewers come")
        async with playing(stand, timeline, range(2)) as viewers:
            assert {node.node_type for node in cloud.nodes()} == {PAID}
            refusals = len(cloud.events("refused"))
            assert refusals >= 1
            await viewers[0].further(5 * FPS)
            assert len(cloud.events("refused")) == refusals, "what cannot be had is not asked for any more"


async def test_a_lost_node_costs_no_frame(stand: Stand, timeline: Timeline) -> None:
    cloud = stand.cloud
    timeline.begin()
    async with timeline.record(cloud):
        timeline.note("three viewers come")
        async with playing(stand, timeline, range(3)) as viewers:
            links = {r.process.pid: r.link.open for r in await stand.cluster.stages("Denoiser") if r.process and r.link}
            busiest = max(links, key=lambda pid: links[pid])
            assert links[busiest] > 0
            (place,) = await asyncio.to_thread(places, cloud, {busiest})
            (node,) = [each for each in cloud.nodes() if each.node == place]
            timeline.note("the node is lost")
            await asyncio.to_thread(cloud.kill, node)
            before = [len(viewer.frames) for viewer in viewers]
            for viewer, frames in zip(viewers, before, strict=True):
                await viewer.further(max(0, frames - len(viewer.frames)) + 2 * FPS)
            timeline.note("all sessions go on")
        await until(lambda: node not in cloud.nodes(), "the lost node is no longer paid for", PATIENCE_S)


async def test_the_budget_is_kept(stand: Stand, timeline: Timeline) -> None:
    cloud = stand.cloud
    timeline.begin()
    async with timeline.record(cloud):
        timeline.note("sixteen viewers come, who need three nodes")
        async with playing(stand, timeline, range(16)) as viewers:
            await until(lambda: len(cloud.nodes()) == CAP, "all nodes that the budget allows", PATIENCE_S)
            await viewers[-1].further(5 * FPS)
        await until(lambda: nothing(cloud), "back to zero", PATIENCE_S)
        timeline.note("back to zero")
    assert timeline.most_nodes == CAP

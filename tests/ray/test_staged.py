"""Three stages and a front door in replicas of their own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.cluster.local import free_port, start_local
from deployments.config.names import APP_NAME
from deployments.links.remote import RemoteDecoder, RemoteDenoiser
from headrace.client import ClientError, HeadraceClient, Unavailable
from headrace.v1 import video_pb2 as pb
from model_core.errors import StageUnavailable
from model_core.messages import GENERATION, read_message
from model_core.types import SessionContext
from tests.fakes import FakeEncoder
from tests.ray.clusters import PATIENCE_S, Cluster, expected, frames, kill, listener, overrides, stream
from tests.ray.fake_stages import HOLD_ENCODER, KILL_ENGINE

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PROMPT = "a red circle moving left"
STAGES = ("Decoder", "Denoiser")


@dataclass(frozen=True, slots=True)
class Boot:
    cluster: Cluster
    before: dict[str, str]  # health while the text encoder was held back, by service


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boot]:
    folder = tmp_path_factory.mktemp("flags")
    (folder / HOLD_ENCODER).touch()
    port = free_port()
    with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        starting = threads.submit(start_local, None, overrides(folder, port))
        stack.callback(lambda: starting.result().stop())  # also where it comes up after what follows has failed
        try:
            before = asyncio.run(health_when_two_of_three_serve(f"127.0.0.1:{port}"))
        finally:
            (folder / HOLD_ENCODER).unlink()
        cluster = Cluster(starting.result(), folder)
        yield Boot(cluster, before)
        cluster.close()


async def health_when_two_of_three_serve(address: str) -> dict[str, str]:
    services = ("", "headrace.v1.VideoService", "stage/text_encoder", "stage/denoiser", "stage/decoder")
    async with asyncio.timeout(PATIENCE_S), HeadraceClient(address) as client:
        while True:
            try:
                health = {service: await client.health(service) for service in services}
                if health["stage/denoiser"] == health["stage/decoder"] == "SERVING":
                    return health
            except ClientError:
                pass  # not listening yet
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(boot: Boot) -> Cluster:
    return boot.cluster


class FromAnotherVersion:
    """A message as a replica of a later version might send it."""

    def __reduce__(self) -> tuple[Any, tuple[str, int, dict[str, Any]]]:
        return read_message, ("model_core.types:SessionContext", GENERATION, {"session_id": "s", "a_field_of_tomorrow": 1})


@pytest.mark.parametrize("by_reference", [False, True], ids=["gRPC", "Ray"])
async def test_a_replica_that_cannot_read_a_message_says_so_and_serves_on(cluster: Cluster, by_reference: bool) -> None:
    handle = cluster.handle("Denoiser").options(_by_reference=by_reference)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(StageUnavailable):
            async for _ in RemoteDenoiser(handle, "denoiser", PATIENCE_S).stream(cast("SessionContext", FromAnotherVersion())):
                pass
        assert await RemoteDenoiser(handle, "denoiser", PATIENCE_S).ping()


async def test_nothing_serves_before_the_last_stage_is_ready(boot: Boot) -> None:
    assert boot.before == {
        "": "NOT_SERVING",
        "headrace.v1.VideoService": "NOT_SERVING",
        "stage/text_encoder": "NOT_SERVING",
        "stage/denoiser": "SERVING",
        "stage/decoder": "SERVING",
    }
    async with boot.cluster.client() as client:
        assert {await client.health(service) for service in boot.before} == {"SERVING"}


async def test_frames_are_those_of_the_pipeline_in_one_process(cluster: Cluster) -> None:
    async with cluster.client() as client:
        made = await frames(client, PROMPT, seed=7, seconds=2.1)
    assert len(made) == 50
    assert made == await expected(PROMPT, seed=7, seconds=2.1)


async def test_sessions_side_by_side_do_not_touch_each_other(cluster: Cluster) -> None:
    async with cluster.client() as client:
        made = await asyncio.gather(*(frames(client, f"{PROMPT} {n}", seed=n, seconds=1.0) for n in range(8)))
    assert made == [await expected(f"{PROMPT} {n}", seed=n, seconds=1.0) for n in range(8)]


async def test_a_prompt_switch_continues_from_the_log(cluster: Cluster) -> None:
    made: list[bytes] = []
    switched_at: int | None = None
    async with asyncio.timeout(PATIENCE_S), cluster.client() as client, client.live(PROMPT, seconds=4.0, seed=3, max_lead_s=0.5) as session:
        async for event in session:
            if isinstance(event, pb.Frames):
                made += event.data
                if event.chunk_index == 2:
                    await session.set_prompt("a blue square")
            elif isinstance(event, pb.PromptAck):
                switched_at = event.first_frame
    assert switched_at is not None
    assert len(made) == 96
    assert made == await expected(PROMPT, seed=3, seconds=4.0, switch=(switched_at, "a blue square"))


async def test_a_cancelled_call_frees_every_stage(cluster: Cluster) -> None:
    async with cluster.client() as client:
        calls = [stream(client, PROMPT, seed=n, seconds=600.0) for n in range(6)]
        for call in calls:
            await anext(call)
        await cluster.until_open(6, 6, 6, 6, of=STAGES)
        for call in calls:
            await call.aclose()
        await cluster.until_free(*STAGES)


async def test_a_client_that_vanishes_frees_every_stage(cluster: Cluster) -> None:
    client = cluster.client()
    call = stream(client, PROMPT, seed=1, seconds=600.0)
    await anext(call)
    await cluster.until_open(1, 1, 1, 1, of=STAGES)
    await client.close()
    await cluster.until_free(*STAGES)
    await call.aclose()


async def chunks_denoised(cluster: Cluster) -> int:
    return sum(replica.denoiser.chunks for replica in await cluster.stages("Denoiser") if replica.denoiser)


async def test_no_stage_runs_ahead_of_a_reader_that_has_stopped(cluster: Cluster) -> None:
    """One chunk a link: the fake stages make nothing ahead of their own accord."""
    context = SessionContext("slow", seed=1, num_steps=4, embedding=await FakeEncoder().encode(PROMPT))
    decoder = RemoteDecoder(cluster.handle("Decoder"), "decoder", PATIENCE_S)
    before = await chunks_denoised(cluster)
    async with aclosing(decoder.stream(context)) as chunks:
        assert [(await anext(chunks)).index for _ in range(5)] == [0, 1, 2, 3, 4]
        await asyncio.sleep(1.0)  # time for dozens of chunks
        assert 5 <= await chunks_denoised(cluster) - before <= 7
        assert (await anext(chunks)).index == 5
    await cluster.until_free(*STAGES)


async def test_every_process_logs_in_json_for_which_session_and_trace_it_works(cluster: Cluster) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with HeadraceClient(cluster.app.address, metadata=(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),)) as client:
        started, *_ = [event async for event in client.stream("a prompt of its own", seconds=0.5)]
    assert isinstance(started, pb.Started)
    assert cluster.app.private_folder is not None
    logs = cluster.app.private_folder / "session_latest" / "logs" / "serve"

    def deployments() -> set[str]:
        lines = [json.loads(line) for file in logs.glob("replica_*.log") for line in file.read_text().splitlines()]
        mine = [line for line in lines if line.get("trace_id") == trace_id]
        assert {line["session_id"] for line in mine} <= {started.session_id}
        return {line["deployment"].removeprefix(f"{APP_NAME}_") for line in mine}

    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(deployments) != {"FrontDoor", "TextEncoder", "Denoiser", "Decoder"}:  # noqa: ASYNC110 - other processes write
            await asyncio.sleep(0.1)


async def test_a_replica_reports_its_stage_its_links_and_its_process(cluster: Cluster) -> None:
    await cluster.until_one("Decoder")
    (report,) = await cluster.stages("Decoder")
    assert None not in {report.decoder, report.link, report.process}
    assert (report.text_encoder, report.denoiser) == (None, None)


async def test_a_denoise_replica_killed_in_a_stream_costs_no_frame(cluster: Cluster) -> None:
    made: list[bytes] = []
    victim = await cluster.until_one("Denoiser")
    async with asyncio.timeout(PATIENCE_S), cluster.client() as client:
        async for chunk in stream(client, PROMPT, seed=11, seconds=8.0):
            made += chunk.data
            if chunk.chunk_index == 4:
                kill(victim)
    assert made == await expected(PROMPT, seed=11, seconds=8.0)
    await cluster.until_one("Denoiser", but=victim)


async def test_a_dead_engine_is_replaced_and_costs_no_frame(cluster: Cluster) -> None:
    victim = await cluster.until_one("Denoiser")
    (cluster.folder / KILL_ENGINE).touch()
    async with cluster.client() as client:
        made = await frames(client, PROMPT, seed=12, seconds=4.0)
    assert not (cluster.folder / KILL_ENGINE).exists()
    assert made == await expected(PROMPT, seed=12, seconds=4.0)
    await cluster.until_one("Denoiser", but=victim)


async def test_a_killed_front_door_comes_back_on_its_port(cluster: Cluster) -> None:
    port = int(cluster.app.address.rsplit(":", 1)[1])
    async with asyncio.timeout(PATIENCE_S), cluster.client() as client:
        call = stream(client, PROMPT, seed=1, seconds=600.0)
        await anext(call)
        victim = listener(port)
        kill(victim)
        with pytest.raises(Unavailable):
            async for _ in call:
                pass
        await cluster.until_free(*STAGES)
        while True:
            try:
                assert await frames(client, PROMPT, seed=13, seconds=1.0) == await expected(PROMPT, seed=13, seconds=1.0)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    assert listener(port) != victim


def test_stopping_ends_every_process_and_frees_the_port(boot: Boot) -> None:
    """Last in this file: the fixture's own stop finds nothing left to do."""
    app = boot.cluster.app
    boot.cluster.close()
    port = int(app.address.rsplit(":", 1)[1])
    session = str(app.private_folder)
    assert processes_of(session)
    app.stop()
    assert processes_of(session) == []
    assert not Path(session).exists()
    with socket.socket() as probe:
        # As any server binds: connections that were closed from this side linger in TIME_WAIT for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()


def processes_of(session: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # gone since it was listed
        if session in command:
            found.append(command[:120])
    return found

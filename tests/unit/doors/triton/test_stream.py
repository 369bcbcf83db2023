"""Decoupled streams of the KServe v2 protocol: many responses a request, errors that end nothing else, sequences that are steered."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import av
import grpc
import grpc.aio
import pytest

from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.stream import MAX_AT_ONCE
from service.checks import Limits
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import serving
from tests.triton import Client, client, final, frames_of, prompt, request, responses, video_of

CONFIG = FakeStages().config
TIMEOUT_S = 200.0  # only bounds a failing test


def gated() -> tuple[FakeStages, asyncio.Semaphore]:
    """Stages that make a chunk for each permit."""
    gate = asyncio.Semaphore(0)
    return FakeStages(denoiser=FakeDenoiser(CONFIG, gate=gate), keep_chunks=8), gate


async def ask(call: Any, *messages: pb.ModelInferRequest, last: bool = True) -> None:
    for message in messages:
        await call.write(message)
    if last:
        await call.done_writing()


async def read(call: Any) -> pb.ModelStreamInferResponse:
    async with asyncio.timeout(TIMEOUT_S):
        response: pb.ModelStreamInferResponse = await call.read()
        assert isinstance(response, pb.ModelStreamInferResponse)
        return response


def ids(found: Iterable[pb.ModelStreamInferResponse]) -> list[str]:
    return [response.infer_response.id for response in found]


async def test_a_request_has_a_response_for_each_chunk() -> None:
    async with serving() as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("a red circle", id="r1"))
        found = await responses(call)
        assert await call.code() is grpc.StatusCode.OK
        await served.nothing_left()
    assert [response.error_message for response in found] == [""] * len(found)
    assert len(found) == CONFIG.fps // CONFIG.frames_per_chunk
    assert set(ids(found)) == {"r1"}
    shapes = [frames_of(response.infer_response).shape for response in found]
    assert shapes == [(CONFIG.frames_per_chunk, CONFIG.height, CONFIG.width, 3)] * len(found)
    firsts = [response.infer_response.parameters["first_frame"].int64_param for response in found]
    assert firsts == [index * CONFIG.frames_per_chunk for index in range(len(found))]
    assert [final(response.infer_response) for response in found] == [False] * (len(found) - 1) + [True]


async def test_one_who_asks_for_it_gets_an_empty_last_response() -> None:
    async with serving() as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("a red circle", id="r1", triton_enable_empty_final_response=True))
        *chunks, last = await responses(call)
    assert all(response.infer_response.outputs and not final(response.infer_response) for response in chunks)
    assert final(last.infer_response)
    assert (last.infer_response.id, list(last.infer_response.outputs), last.error_message) == ("r1", [], "")
    assert last.infer_response.parameters["video_seconds"].double_param == 1.0
    assert last.infer_response.parameters["pixels"].int64_param == CONFIG.fps * CONFIG.width * CONFIG.height


async def test_the_pieces_of_a_video_are_a_file_that_plays() -> None:
    async with serving() as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("a red circle", outputs=("video",)))
        found = await responses(call)
    data = b"".join(video_of(response.infer_response) for response in found)
    with av.open(io.BytesIO(data), "r") as container:
        assert len(list(container.decode(video=0))) == CONFIG.fps


async def test_an_error_ends_its_request_and_nothing_else() -> None:
    async with serving() as served, client(served) as here:
        call = here.stream()
        await ask(
            call, prompt("", id="bad"), prompt("x", id="who", model="unknown"), prompt("x", id="both", outputs=("video", "frames")),
            request(id="none", sequence_id=9), prompt("a red circle", id="good"),
        )  # fmt: skip
        found = await responses(call)
        assert await call.code() is grpc.StatusCode.OK
    errors = {response.infer_response.id: response.error_message for response in found if response.error_message}
    assert set(errors) == {"bad", "who", "both", "none"}
    assert errors["bad"].startswith("request bad: inputs.prompt: must hold at least 1 character")
    assert CONFIG.name in errors["who"]
    assert "outputs: must be frames or video on a stream" in errors["both"]
    assert "sequence_start" in errors["none"]
    assert all(final(response.infer_response) for response in found if response.error_message)
    assert sum(response.infer_response.id == "good" for response in found) == CONFIG.fps // CONFIG.frames_per_chunk


async def test_requests_of_one_stream_run_beside_each_other() -> None:
    stages, gate = gated()
    async with serving(stages) as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("one", id="a"), prompt("two", id="b"))
        await eventually(lambda: served.desk.statistics().live == 2)
        for _ in range(100):
            gate.release()
        found = await responses(call)
    assert sorted(set(ids(found))) == ["a", "b"]


async def test_more_requests_than_a_stream_may_run_are_refused() -> None:
    stages, gate = gated()
    async with serving(stages, max_sessions=MAX_AT_ONCE) as served, client(served) as here:
        call = here.stream()
        await ask(call, *(prompt("x", seconds=0.1, id=str(number)) for number in range(MAX_AT_ONCE + 1)))
        refused = await read(call)
        assert refused.infer_response.id == str(MAX_AT_ONCE)
        assert f"{MAX_AT_ONCE} requests run on this stream" in refused.error_message
        for _ in range(100):
            gate.release()
        assert len(await responses(call)) == MAX_AT_ONCE
        await served.nothing_left()


async def test_a_sequence_is_a_live_session_that_further_requests_steer() -> None:
    stages, gate = gated()
    async with serving(stages) as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("a red circle", None, id="1", sequence_id=7, sequence_start=True, max_lead_seconds=30), last=False)
        gate.release()
        first = await read(call)
        assert (first.infer_response.id, final(first.infer_response)) == ("1", False)
        await ask(call, prompt("a blue square", None, id="2", sequence_id=7), last=False)
        await eventually(lambda: stages.encoder.calls == 2)
        found = [first]
        while found[-1].infer_response.id != "2":
            gate.release()
            found.append(await read(call))
        assert set(ids(found[:-1])) == {"1"}
        told = [response.infer_response.parameters for response in found]
        frames = [(each["first_frame"].int64_param, each["frames"].int64_param) for each in told]
        assert all(begin + count == after for (begin, count), (after, _) in pairwise(frames))
        await ask(call, request(id="3", sequence_id=7, sequence_end=True))
        gate.release()
        rest = await responses(call)
        assert all(not response.error_message for response in rest)
        assert await call.code() is grpc.StatusCode.OK
        await served.nothing_left()


async def test_each_request_of_a_sequence_hears_that_there_is_no_more() -> None:
    stages, gate = gated()
    asked: dict[str, Any] = {"sequence_id": "s", "triton_enable_empty_final_response": True}
    async with serving(stages) as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("one", None, id="1", sequence_start=True, max_lead_seconds=30, **asked), last=False)
        gate.release()
        found = [await read(call)]
        await ask(call, prompt("two", None, id="2", **asked), last=False)
        await eventually(lambda: stages.encoder.calls == 2)
        while found[-1].infer_response.id != "2":
            gate.release()
            found.append(await read(call))
        await ask(call, request(id="3", sequence_end=True, **asked))
        gate.release()
        found += await responses(call)
    assert [response.infer_response.id for response in found if final(response.infer_response)] == ["1", "2", "3"]


async def test_a_prompt_that_is_refused_leaves_the_sequence_as_it_was() -> None:
    stages, gate = gated()
    async with serving(stages) as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("one", None, id="1", sequence_id=7, sequence_start=True, max_lead_seconds=30), last=False)
        gate.release()
        await read(call)
        await ask(
            call, prompt("", None, id="2", sequence_id=7), prompt("two", 3.0, id="3", sequence_id=7),
            prompt("one", None, id="4", sequence_id=7, sequence_start=True), last=False,
        )  # fmt: skip
        refused = {response.infer_response.id: response.error_message for response in [await read(call) for _ in range(3)]}
        assert "prompt" in refused["2"]
        assert "inputs.seconds" in refused["3"]
        assert "parameters.sequence_start" in refused["4"]
        gate.release()
        assert ids([await read(call)]) == ["1"]
        call.cancel()
        await served.nothing_left()


async def test_an_endless_sequence_ends_with_its_stream() -> None:
    stages, gate = gated()
    async with serving(stages) as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("one", None, id="1", sequence_id=7, sequence_start=True, max_lead_seconds=30))
        for _ in range(3):
            gate.release()
        await responses(call)
        assert await call.code() is grpc.StatusCode.OK
        await served.nothing_left()


async def test_a_sequence_with_a_length_plays_to_its_end() -> None:
    async with serving() as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("one", 1.0, id="1", sequence_id=7, sequence_start=True, max_lead_seconds=30))
        found = await responses(call)
        await served.nothing_left()
    assert len(found) == CONFIG.fps // CONFIG.frames_per_chunk


async def test_a_client_that_leaves_frees_everything() -> None:
    stages, _ = gated()
    async with serving(stages) as served, client(served) as here:
        call = here.stream()
        await ask(call, prompt("one", id="1"), prompt("two", None, id="2", sequence_id=7, sequence_start=True), last=False)
        await eventually(lambda: served.desk.statistics().live == 2)
        call.cancel()
        await served.nothing_left()


async def test_a_client_that_reads_nothing_is_ended() -> None:
    limits = Limits(stall_timeout_seconds=0.2)
    async with serving(limits=limits) as served:
        options = (("grpc.max_receive_message_length", 2**31 - 1), ("grpc.http2.lookahead_bytes", 16_384))
        async with grpc.aio.insecure_channel(served.address, options) as channel:
            call = Client(channel).stream()
            await ask(call, prompt("one", 3600.0, id="1"), last=False)
            await eventually(lambda: served.stages.denoiser.statistics().chunks > 0)
            await served.nothing_left()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await responses(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_on_which_nothing_happens_ends() -> None:
    async with serving(limits=Limits(max_stream_seconds=0.05, max_generate_seconds=0.05)) as served, client(served) as here:
        call = here.stream()
        assert await responses(call) == []
        assert await call.code() is grpc.StatusCode.OK


async def test_bytes_that_are_no_request_end_the_stream() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        call: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

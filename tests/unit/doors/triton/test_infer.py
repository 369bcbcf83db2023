"""Models as the KServe v2 protocol describes them, and whole videos in one answer."""

from __future__ import annotations

import io
import math
from typing import Any

import av
import grpc
import grpc.aio
import numpy as np
import pytest

from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.room import SERVICE_NAME
from tests.fakes import FakeStages
from tests.pictures import encoded, picture
from tests.served import details_of, serving
from tests.triton import Client, client, frames_of, prompt, request, video_of

CONFIG = FakeStages().config
RED = ("prompt", "BYTES", "a red circle")


async def refused(here: Client, message: Any, method: str = "ModelInfer") -> tuple[grpc.StatusCode, list[str], str]:
    """Status, fields and sentence."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.call(method, message)
    fields = [violation.field for detail in details_of(caught.value) for violation in getattr(detail, "field_violations", ())]
    return caught.value.code(), fields, caught.value.details() or ""


async def test_the_server_is_live_ready_and_says_what_it_is() -> None:
    async with serving() as served, client(served) as here:
        assert (await here.call("ServerLive", pb.ServerLiveRequest())).live
        told = await here.call("ServerMetadata", pb.ServerMetadataRequest())
        assert told.name == "headrace"
        assert told.version
        assert "sequence" in told.extensions
        await served.monitor.probe()
        assert (await here.call("ServerReady", pb.ServerReadyRequest())).ready
        assert (await here.call("ModelReady", pb.ModelReadyRequest(name=CONFIG.name))).ready
        assert (await here.call("ModelReady", pb.ModelReadyRequest(name=CONFIG.name, version="1"))).ready
        assert not (await here.call("ModelReady", pb.ModelReadyRequest(name="unknown"))).ready
        assert not (await here.call("ModelReady", pb.ModelReadyRequest(name=CONFIG.name, version="2"))).ready
        assert served.metric("calls_total", rpc="triton.ServerLive", outcome="completed") == 1


async def test_a_stage_that_is_away_makes_the_server_live_and_not_ready() -> None:
    async def away() -> None:
        raise ConnectionError

    async with serving(probes={"denoiser": away}) as served, client(served) as here:
        await served.monitor.probe()
        assert (await here.call("ServerLive", pb.ServerLiveRequest())).live
        assert not (await here.call("ServerReady", pb.ServerReadyRequest())).ready
        assert not (await here.call("ModelReady", pb.ModelReadyRequest(name=CONFIG.name))).ready
        index = await here.call("RepositoryIndex", pb.RepositoryIndexRequest())
        assert [(model.name, model.state) for model in index.models] == [(CONFIG.name, "UNAVAILABLE")]
        assert not (await here.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))).models


async def test_a_model_describes_its_tensors() -> None:
    async with serving() as served, client(served) as here:
        await served.monitor.probe()
        told = await here.call("ModelMetadata", pb.ModelMetadataRequest(name=CONFIG.name))
        assert (told.name, list(told.versions)) == (CONFIG.name, ["1"])
        assert [(t.name, t.datatype, list(t.shape)) for t in told.outputs] == [
            ("frames", "UINT8", [-1, CONFIG.height, CONFIG.width, 3]),
            ("video", "BYTES", [1]),
        ]
        expected = {
            "prompt": "BYTES", "seconds": "FP32", "seed": "UINT64", "steps": "INT32", "guidance": "FP32", "negative_prompt": "BYTES",
        }  # fmt: skip
        assert {t.name: t.datatype for t in told.inputs} == expected | {str(kind): "BYTES" for kind in CONFIG.media}
        config = (await here.call("ModelConfig", pb.ModelConfigRequest(name=CONFIG.name))).config
        assert config.model_transaction_policy.decoupled
        assert {each.name: each.optional for each in config.input}["prompt"] is False
        assert {each.name: each.optional for each in config.input}["seconds"] is True
        index = await here.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
        assert [(model.name, model.version, model.state) for model in index.models] == [(CONFIG.name, "1", "READY")]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
async def test_an_unknown_model_or_version_is_not_found(method: str) -> None:
    kind = getattr(pb, f"{method}Request")
    async with serving() as served, client(served) as here:
        code, fields, sentence = await refused(here, kind(name="unknown"), method)
        assert (code, fields) == (grpc.StatusCode.NOT_FOUND, ["model_name"])
        assert CONFIG.name in sentence
        code, fields, _ = await refused(here, kind(name=CONFIG.name, version="7"), method)
        assert (code, fields) == (grpc.StatusCode.NOT_FOUND, ["model_version"])


async def test_a_video_is_the_default_output() -> None:
    async with serving() as served, client(served) as here:
        answer = await here.call("ModelInfer", prompt("a red circle", id="r1", model=CONFIG.name))
        assert (answer.model_name, answer.model_version, answer.id) == (CONFIG.name, "1", "r1")
        with av.open(io.BytesIO(video_of(answer)), "r") as container:
            assert len(list(container.decode(video=0))) == CONFIG.fps
        assert answer.parameters["seed"].string_param == "5"
        assert answer.parameters["fps"].int64_param == CONFIG.fps
        assert answer.parameters["video_seconds"].double_param == 1.0
        assert answer.parameters["denoise_seconds"].double_param > 0
        await served.nothing_left()


async def test_frames_are_those_of_any_other_door() -> None:
    async with serving() as served, client(served) as here:
        seeded = request(RED, ("seconds", "FP64", 1.0), ("seed", "INT64", 7), outputs=("frames",))
        pixels = frames_of(await here.call("ModelInfer", seeded))
        assert pixels.shape == (CONFIG.fps, CONFIG.height, CONFIG.width, 3)
        both = await here.call("ModelInfer", request(RED, ("seconds", "FP32", 1.0), ("seed", "UINT64", 7), outputs=("video", "frames")))
        assert [output.name for output in both.outputs] == ["video", "frames"]
        assert both.raw_output_contents[1] == pixels.tobytes()
        with av.open(io.BytesIO(video_of(both)), "r") as container:
            assert len(list(container.decode(video=0))) == CONFIG.fps
        events = [event async for event in served.client.stream("a red circle", seconds=1.0, seed=7)]
        own = b"".join(item for event in events for item in getattr(event, "data", ()))
        assert own == pixels.tobytes()
        await served.nothing_left()


async def test_a_request_may_have_typed_contents_and_no_length() -> None:
    message = request(RED, ("steps", "INT64", 2), outputs=("frames",))
    del message.raw_input_contents[:]
    message.inputs[0].contents.bytes_contents.append(b"a red circle")
    message.inputs[1].contents.int64_contents.append(2)
    async with serving() as served, client(served) as here:
        answer = await here.call("ModelInfer", message)
        assert len(frames_of(answer)) == 4 * CONFIG.fps
        assert answer.parameters["steps"].int64_param == 2


async def test_an_image_is_an_input() -> None:
    if "image" not in CONFIG.media:
        pytest.skip("the embedded model takes no image")
    async with serving() as served, client(served) as here:
        answer = await here.call("ModelInfer", request(RED, ("seconds", "FP32", 1.0), ("image", "BYTES", encoded(picture(), "PNG"))))
        assert video_of(answer)


BAD: list[tuple[pb.ModelInferRequest, list[str]]] = [
    (request(("seconds", "FP32", 1.0)), ["inputs.prompt"]),
    (request(("prompt", "BYTES", b"\xff\xfe")), ["inputs.prompt"]),
    (request(RED, ("seconds", "FP32", math.nan)), ["inputs.seconds"]),
    (request(RED, ("seconds", "FP32", 1e9)), ["inputs.seconds"]),
    (request(RED, ("seed", "INT64", -1)), ["inputs.seed"]),
    (request(RED, ("seed", "FP32", 1.0)), ["inputs.seed"]),
    (request(RED, ("steps", "INT32", 1000)), ["inputs.steps"]),
    (request(RED, RED), ["inputs.prompt"]),
    (request(RED, ("colour", "BYTES", "red")), ["inputs.colour"]),
    (request(RED, outputs=("sound",)), ["outputs"]),
    (request(RED, sequence_id=5, sequence_start=True), ["parameters.sequence_id"]),
    (request(RED, sequence_id=True), ["parameters.sequence_id"]),
    (request(RED, max_message_bytes=-1), ["parameters.max_message_bytes"]),
    (request(RED, max_lead_seconds="much"), ["parameters.max_lead_seconds"]),
    (request(RED, id="x" * 300), ["id"]),
]


@pytest.mark.parametrize(("message", "fields"), BAD, ids=lambda value: ",".join(value) if isinstance(value, list) else "")
async def test_every_bad_field_is_named(message: pb.ModelInferRequest, fields: list[str]) -> None:
    async with serving() as served, client(served) as here:
        code, found, sentence = await refused(here, message)
        assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, fields)
        assert "must" in sentence
        await served.nothing_left()


def mended(**changes: Any) -> pb.ModelInferRequest:
    """A request of one prompt with something about its tensor changed."""
    message = request(RED)
    for name, value in changes.items():
        match name:
            case "raw":
                message.raw_input_contents[:] = value
            case "shape":
                message.inputs[0].shape[:] = value
            case "shared":
                message.inputs[0].parameters["shared_memory_region"].string_param = value
            case _:
                setattr(message.inputs[0], name, value)
    return message


@pytest.mark.parametrize(
    ("message", "field", "said"),
    [
        (mended(raw=[b"\x01\x00"]), "inputs.prompt", "after its length in 4 bytes; got 2 bytes"),
        (mended(raw=[b"\x09\x00\x00\x00abc"]), "inputs.prompt", "got 7 bytes"),
        (mended(raw=[b"a", b"b"]), "raw_input_contents", "must be as many as inputs, 1, or none; got 2"),
        (mended(raw=[]), "inputs.prompt", "in contents.bytes_contents; got 0"),
        (mended(shape=[2]), "inputs.prompt", "got shape [2]"),
        (mended(shape=[2**62, 2**62]), "inputs.prompt", "must have 1 element"),
        (mended(datatype="FP32"), "inputs.prompt", "must be of data type BYTES; got 'FP32'"),
        (mended(shared="region"), "inputs.prompt", "no shared memory"),
    ],
)
async def test_a_tensor_that_is_none_is_told_why(message: pb.ModelInferRequest, field: str, said: str) -> None:
    async with serving() as served, client(served) as here:
        code, fields, sentence = await refused(here, message)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert field in fields
        assert said in sentence


async def test_an_answer_that_is_too_large_is_refused_with_the_size_that_it_needs() -> None:
    async with serving() as served, client(served) as here:
        code, fields, sentence = await refused(here, request(RED, outputs=("frames",), max_message_bytes=100_000))
        assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["parameters.max_message_bytes"])
        assert "ModelStreamInfer" in sentence
        code, fields, _ = await refused(here, request(RED, max_message_bytes=5000))
        assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["parameters.max_message_bytes"])
        await served.nothing_left()


async def test_a_full_server_says_when_to_come_again() -> None:
    async with serving(max_sessions=1, max_waiting=0) as served, client(served) as here:
        running = served.client.stream("a blue square", seconds=100.0, max_lead_s=1.0)
        await anext(running)
        code, _, sentence = await refused(here, prompt("a red circle"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "try again" in sentence
        await running.aclose()


async def test_statistics_count_inferences_and_chunks() -> None:
    async with serving() as served, client(served) as here:
        await here.call("ModelInfer", prompt("a red circle", outputs=("frames",)))
        await refused(here, prompt("a red circle", max_message_bytes=5000))
        (stats,) = (await here.call("ModelStatistics", pb.ModelStatisticsRequest())).model_stats
        assert (stats.name, stats.version, stats.inference_count) == (CONFIG.name, "1", 1)
        assert stats.execution_count == CONFIG.fps // CONFIG.frames_per_chunk
        assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (1, 1)
        assert stats.inference_stats.compute_infer.ns > 0
        assert stats.last_inference > 1_600_000_000_000


async def test_methods_that_are_not_here_are_unimplemented() -> None:
    async with serving() as served, client(served), grpc.aio.insecure_channel(served.address) as channel:
        stub: Any = channel.unary_unary(f"/{SERVICE_NAME}/RepositoryModelLoad")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_are_no_message_are_refused() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        stub: Any = channel.unary_unary(f"/{SERVICE_NAME}/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_pixels_are_not_copied_into_a_wider_type() -> None:
    answer = pb.ModelInferResponse(raw_output_contents=[bytes(3)])
    answer.outputs.add(name="frames", datatype="UINT8", shape=[1, 1, 1, 3])
    assert frames_of(answer).dtype == np.uint8

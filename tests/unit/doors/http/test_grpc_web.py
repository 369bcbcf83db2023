"""gRPC-Web: the same events as over gRPC, in frames that a browser can read."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from doors.http.grpc_web import framing
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest
from service.identity.principal import Caller, Principal, Unauthenticated
from tests.fakes import FakeDenoiser, FakeStages
from tests.http_served import SEED, HttpServed, OpenAuthority, http_serving

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text"
STREAM, LIST = "/headrace.v1.VideoService/Stream", "/headrace.v1.VideoService/ListModels"
SPEC = pb.VideoSpec(prompt="a red circle", seconds=0.5)
CONFIG = FakeStages().config


def frames(data: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The messages, and the trailers."""
    messages, at = [], 0
    while data[at] == 0:
        size = int.from_bytes(data[at + 1 : at + 5])
        messages.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    assert data[at] == 0x80
    assert at + 5 + int.from_bytes(data[at + 1 : at + 5]) == len(data)
    lines = data[at + 5 :].decode().splitlines()
    return messages, dict(line.split(":", 1) for line in lines)


def unpadded(text: bytes) -> bytes:
    """Base64 whose writes have padding of their own."""
    return b"".join(base64.b64decode(text[at : at + 4]) for at in range(0, len(text), 4))


async def call(served: HttpServed, path: str, data: bytes, kind: str = BINARY, **headers: str) -> tuple[list[bytes], dict[str, str]]:
    content = framing.message(data)
    answer = await served.client.post(
        path, content=base64.b64encode(content) if kind == TEXT else content, headers={"content-type": kind, **headers}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    return frames(unpadded(answer.content) if kind == TEXT else answer.content)


@pytest.mark.parametrize("kind", [BINARY, TEXT])
@pytest.mark.parametrize("codec", [pb.CODEC_JPEG, pb.CODEC_FMP4_H264])
async def test_a_stream_has_all_events_and_ends_well(kind: str, codec: Any) -> None:
    async with http_serving() as served:
        messages, trailers = await call(served, STREAM, pb.StreamRequest(spec=SPEC, codec=codec).SerializeToString(), kind)
        replies = [pb.StreamResponse.FromString(message) for message in messages]
        assert replies[0].started.seed == SEED
        assert sum(reply.frames.frame_count for reply in replies) == CONFIG.fps // 2
        assert replies[-1].ended.reason == pb.END_REASON_COMPLETED
        assert trailers == {"grpc-status": "0"}
        assert served.metric("calls_total", rpc="grpc_web.Stream", outcome="completed") == 1
        await served.nothing_left()


async def test_models_are_listed() -> None:
    async with http_serving() as served:
        (message,), trailers = await call(served, LIST, b"")
        assert [model.name for model in pb.ListModelsResponse.FromString(message).models] == [CONFIG.name]
        assert trailers["grpc-status"] == "0"


async def test_a_wrong_request_has_the_status_and_details_of_grpc() -> None:
    async with http_serving() as served:
        messages, trailers = await call(served, STREAM, pb.StreamRequest(spec=pb.VideoSpec(prompt=" é\n", seconds=0)).SerializeToString())
        assert messages == []
        assert trailers["grpc-status"] == "3"
        details = status_pb2.Status.FromString(base64.b64decode(trailers["grpc-status-details-bin"] + "=="))
        bad = error_details_pb2.BadRequest()
        assert details.details[0].Unpack(bad)
        assert {violation.field for violation in bad.field_violations} == {"spec.prompt", "spec.seconds"} or [
            violation.field for violation in bad.field_violations
        ] == ["spec.seconds"]
        assert "\n" not in trailers["grpc-message"]
        assert served.metric("calls_total", rpc="grpc_web.Stream", outcome="invalid") == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", BINARY),
        (b"\x00\x00\x00\x00", BINARY),
        (b"\x01\x00\x00\x00\x00", BINARY),
        (b"\x80\x00\x00\x00\x00", BINARY),
        (b"\x00\x00\x00\x00\x05ab", BINARY),
        (framing.message(b"") * 2, BINARY),
        (framing.message(b"\xff"), BINARY),
        (b"%%%", TEXT),
        (framing.message(b""), "application/json"),
    ],
)
async def test_what_is_no_message_is_refused_in_trailers(content: bytes, kind: str) -> None:
    async with http_serving() as served:
        answer = await served.client.post(STREAM, content=content, headers={"content-type": kind})
        assert answer.status_code == 200
        _, trailers = frames(unpadded(answer.content) if kind == TEXT else answer.content)
        assert trailers["grpc-status"] == "3"


async def test_a_call_ends_at_its_deadline() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, gate=asyncio.Semaphore(0)))
    async with http_serving(stages) as served:
        request = pb.StreamRequest(spec=SPEC).SerializeToString()
        messages, trailers = await call(served, STREAM, request, **{"grpc-timeout": "100m"})
        assert [pb.StreamResponse.FromString(message).WhichOneof("event") for message in messages] == ["started"]
        assert trailers["grpc-status"] == "4"
        await served.nothing_left()
        _, trailers = await call(served, STREAM, request, **{"grpc-timeout": "soon"})
        assert trailers["grpc-status"] == "3"


async def test_an_unknown_caller_is_told_so_in_trailers() -> None:
    class Locked(OpenAuthority):
        async def without_secret(self, caller: Caller) -> Principal:
            raise Unauthenticated("a key is needed")

    async with http_serving(authority=Locked()) as served:
        _, trailers = await call(served, STREAM, b"")
        assert trailers == {"grpc-status": "16", "grpc-message": "a key is needed"}


async def test_a_defect_tells_an_id_alone() -> None:
    async with http_serving(FakeStages(FakeDenoiser(CONFIG, error=ValueError("a defect")))) as served:
        _, trailers = await call(served, STREAM, pb.StreamRequest(spec=SPEC).SerializeToString())
        assert trailers["grpc-status"] == "13"
        assert trailers["grpc-message"].startswith("internal error; request id id-")


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_text_is_read_wherever_its_writes_ended(parts: list[bytes]) -> None:
    assert framing.from_text(b"".join(base64.b64encode(part) for part in parts), "m") == b"".join(parts)


@given(st.binary(max_size=40))
def test_any_body_is_a_message_or_refused(body: bytes) -> None:
    for read in (framing.only_message, framing.from_text):
        try:
            read(body, "m")
        except InvalidRequest:
            continue

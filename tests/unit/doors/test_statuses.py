"""Every error reaches every client, with the status and details that docs/any-language.md promises."""

from __future__ import annotations

import asyncio
import errno
import inspect
import re
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

import service.records.store as store_errors
from doors.wire.message_size import MIN_BYTES
from doors.wire.statuses import status_of
from doors.wire.trailer import MAX_DETAILS_BYTES, MAX_MESSAGE_BYTES, short, trailer
from headrace.client import Busy, ClientError, HeadraceClient, Unavailable
from headrace.v1 import video_pb2 as pb
from model_core import errors
from model_core.errors import FieldViolation, InvalidRequest
from service.call import ReaderStalled
from service.checks import Limits
from service.failures import NotServed
from service.identity.principal import Forbidden, QuotaExceeded, Unauthenticated
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import details_of, raw_call, read_all, serving

PAGE = Path(__file__).parents[3] / "docs" / "any-language.md"
CONFIG = FakeStages().config
MOST_BYTES = Limits().max_request_bytes
CLIENT_LIMIT_BYTES = 8192  # of C-core, for all of a call's headers

NEVER_LEAVES = {errors.HeadraceError, store_errors.StoreUnavailable}  # the root, and one that the keeper translates


def example(kind: type[Exception]) -> Exception:
    """An error of that kind, made from the types of its arguments."""
    values = {
        "str": "told",
        "float": 2.5,
        "int": 3,
        "tuple[FieldViolation, ...]": (FieldViolation("spec.seconds", "must be more than 0; got 0"),),
    }
    if kind.__init__ is Exception.__init__:
        return kind("told")
    return kind(*(values[parameter.annotation] for parameter in inspect.signature(kind).parameters.values()))


def every_error() -> list[Exception]:
    kinds = [
        value
        for module in (errors, store_errors)
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
    ]
    raised = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception) and kind not in NEVER_LEAVES]
    spent, full = (QuotaExceeded("told", limit="some", allowed=1, used=1, retry_after_s=after_s) for after_s in (None, 2.5))
    known = [Unauthenticated("told"), Forbidden("told"), NotServed("told"), spent, full]
    return [*map(example, raised), *known, ReaderStalled("nothing was read for 60 s"), ValueError("a defect")]


RAISED = every_error()


def documented() -> dict[str, tuple[str, bool]]:
    """By code: its details, and whether to try again, from the page's table."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|[^|]*\| ([^|]*) \| (yes|no)[^|]*\|", PAGE.read_text(), re.MULTILINE)
    return {code: (details.strip().strip("`"), again == "yes") for code, details, again in rows}


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_every_error_has_the_status_that_the_page_says(error: Exception) -> None:
    status = status_of(error, new_id=lambda: "id-1")
    kind = "none" if status.detail is None else type(status.detail).__name__

    details, again = documented()[status.code.name]
    assert kind == details
    assert isinstance(status.detail, error_details_pb2.RetryInfo) <= again  # a delay is only told where trying again helps


def test_only_what_may_be_tried_again_is_resource_exhausted() -> None:
    codes = {type(error): status_of(error, new_id=lambda: "id-1").code for error in RAISED}

    assert [kind for kind, code in codes.items() if code is grpc.StatusCode.RESOURCE_EXHAUSTED] == [errors.CapacityExceeded, QuotaExceeded]


@pytest.mark.parametrize("unit", ["plain", "p\u00e9", "\u6c34", "%", "\n", "\U0001f3ac", "\udc80"])
@pytest.mark.parametrize("times", [1, 3000])
def test_a_message_is_cut_to_what_travels(unit: str, times: int) -> None:
    cut = short(unit * times)
    travels = sum(1 if 0x20 <= b <= 0x7E and b != 0x25 else 3 for b in cut.encode())

    assert (unit * times).encode(errors="replace").decode().startswith(cut)
    assert len(cut) == len(unit) if times == 1 else MAX_MESSAGE_BYTES - 12 <= travels <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("count", [1, 5, 400])
def test_a_long_list_of_violations_is_cut_and_counted(count: int) -> None:
    error = InvalidRequest(tuple(FieldViolation(f"spec.field_{i}", "must be \u00e9" + "x" * 90) for i in range(count)))
    status = status_of(error, new_id=str)
    ((_, value),) = trailer(status.code, status.message, status.detail)
    found = error_details_pb2.BadRequest()
    (packed,) = status_pb2.Status.FromString(value).details
    assert packed.Unpack(found)

    kept = [v for v in found.field_violations if v.field]
    counted = [v.description for v in found.field_violations if not v.field]
    assert len(value) <= MAX_DETAILS_BYTES
    assert [v.field for v in kept] == [f"spec.field_{i}" for i in range(len(kept))]
    assert counted == ([] if count == len(kept) else [f"and {count - len(kept)} more"])
    assert 4 * len(value) / 3 + MAX_MESSAGE_BYTES + 300 <= CLIENT_LIMIT_BYTES


async def test_a_stock_client_gets_the_status_of_a_request_with_many_faults() -> None:
    """With more headers than C-core takes, the status was RESOURCE_EXHAUSTED."""
    acks = [pb.PromptAck(prompt="\x1b" + "\u00e9" * 70, first_frame=8 * i) for i in range(32)]
    request = pb.StreamRequest(resume=pb.SessionResume(token="x", acknowledged=acks))  # noqa: S106 - no secret
    async with serving() as served:
        error: Any = await raw_call(served, "Stream", request.SerializeToString())

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (bad,) = details_of(error)
        assert bad.field_violations[0].field == "resume.acknowledged.prompt"
        await served.nothing_left()


async def test_text_of_stages_that_is_not_ascii_reaches_the_caller() -> None:
    fault = errors.CapacityExceeded("belegt: \u00e9\u6c34 " * 500, retry_after_s=3.0)
    async with serving(FakeStages(FakeDenoiser(CONFIG, error=fault))) as served:
        request = pb.StreamRequest(spec=pb.VideoSpec(prompt="a circle", seconds=1.0))
        error: Any = await raw_call(served, "Stream", request.SerializeToString())

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details().startswith("belegt: \u00e9\u6c34 belegt")
        (retry,) = details_of(error)
        assert retry.retry_delay.seconds == 3


@pytest.mark.parametrize(("method", "size"), [("Generate", MOST_BYTES + 1), ("Stream", 20 * 1024 * 1024), ("Live", MOST_BYTES + 1)])
async def test_a_message_that_is_too_large_is_not_busy(method: str, size: int) -> None:
    """Of up to 64 MiB; ADR 0013."""
    async with serving() as served:
        error: Any = await raw_call(served, method, b"\x00" * size)

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (bad,) = details_of(error)
        (violation,) = bad.field_violations
        assert violation.field == f"{method}Request"
        told = "of which an image may take 8388608 and a video 8388608"
        assert violation.description == f"must be at most {MOST_BYTES} bytes, {told}; got {size}"
        await served.still_serves()
        await served.nothing_left()


@pytest.mark.parametrize("method", ["Generate", "Stream", "ListModels"])
async def test_a_call_without_its_request_is_answered(method: str) -> None:
    """No stock client does it; gRPC's own reader of single requests would wait with the caller for ever."""
    limits = Limits(stall_timeout_seconds=0.05)
    async with serving(limits=limits) as served, grpc.aio.insecure_channel(served.address) as channel:
        plain: Any = channel
        closed, silent = (plain.stream_stream(f"/headrace.v1.VideoService/{method}")() for _ in range(2))
        await closed.done_writing()
        for call, told in ((closed, "closed without any"), (silent, r"within 0\.05 s")):
            with pytest.raises(grpc.aio.AioRpcError, match=told) as caught:
                await read_all(call)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_our_client_does_not_take_what_is_too_large_for_busy() -> None:
    async with serving(FakeStages(config=CONFIG)) as served:
        small = grpc.aio.insecure_channel(served.address, options=[("grpc.max_receive_message_length", 1000)])
        async with HeadraceClient(served.address) as client, small:
            client._stream = small.unary_stream(  # noqa: SLF001 - a client whose limit is lower than it says
                "/headrace.v1.VideoService/Stream", pb.StreamRequest.SerializeToString, pb.StreamResponse.FromString
            )
            with pytest.raises(ClientError, match="larger than max") as caught:
                [event async for event in client.stream("a circle", seconds=0.5)]
        assert not isinstance(caught.value, Busy)


async def test_requests_in_gzip_and_with_unknown_fields_are_served() -> None:
    request = pb.StreamRequest(spec=pb.VideoSpec(prompt="a circle", seconds=0.2), max_message_bytes=MIN_BYTES).SerializeToString()
    unknown = request + b"\xfa\x3e\x03abc"  # field 1007
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        plain: Any = channel
        for data, compression in ((request, grpc.Compression.Gzip), (request, grpc.Compression.Deflate), (unknown, None)):
            messages = await read_all(plain.unary_stream("/headrace.v1.VideoService/Stream")(data, compression=compression))
            assert pb.StreamResponse.FromString(messages[-1]).HasField("ended")


async def test_many_calls_on_one_connection_are_all_answered() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        plain: Any = channel
        calls = [plain.unary_unary("/headrace.v1.VideoService/ListModels")(b"") for _ in range(300)]
        assert all([await call for call in calls])


@pytest.mark.parametrize("size", [7_000, 12_000, 30_000, 60_000])
async def test_a_call_with_a_long_token_in_its_metadata_is_served(size: int) -> None:
    """From 8 KiB on some, and from 16 KiB on all, were RESOURCE_EXHAUSTED."""
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        plain: Any = channel
        for _ in range(8):
            assert await plain.unary_unary("/headrace.v1.VideoService/ListModels")(b"", metadata=(("authorization", "x" * size),))


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live", "ListModels"])
async def test_a_call_that_is_cancelled_before_its_first_message_was_not_invalid(method: str) -> None:
    def ended(outcome: str) -> float:
        return served.metric("calls_total", rpc=method, outcome=outcome)

    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        plain: Any = channel
        call = plain.stream_stream(f"/headrace.v1.VideoService/{method}", request_serializer=bytes)()
        await channel.channel_ready()
        await asyncio.sleep(0.02)  # on its way; where it has not come yet, nothing is counted
        call.cancel()
        await served.client.list_models()
        await eventually(lambda: served.service.open_sessions == 0)
        assert ended("invalid") == 0


async def test_a_full_disk_is_no_defect_and_touches_no_one_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with serving() as served:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            with pytest.raises(Unavailable, match="no room for the file; try again in 2 s"):
                await served.client.generate("a circle", seconds=0.1)
        assert (await served.client.generate("a circle", seconds=0.1)).mp4
        await served.nothing_left()

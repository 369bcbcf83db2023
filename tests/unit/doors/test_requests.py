import asyncio
import math
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doors.wire.messages import RequestParser
from doors.wire.replies import MESSAGES
from doors.wire.requests import Orders, control
from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest
from model_core.presets import DEFAULT_MODEL, millrace_64
from model_core.types import Codec
from service.checks import Catalogue, Limits, Problems, Validator
from service.controls import ChangePrompt, Pause, Resume, Stop
from service.events import Event, Frames, Shown
from service.orders import Doorway, Order, VideoRequest

CONFIG = millrace_64()
LIMITS = Limits()
U64_MAX = 2**64 - 1


class Checking:
    """An intake of new sessions only."""

    def __init__(self) -> None:
        self.validator = Validator(Catalogue({CONFIG.name: CONFIG}, DEFAULT_MODEL), LIMITS)

    def order(self, request: VideoRequest, doorway: Doorway, problems: Problems) -> Order:
        return self.validator.order(request, doorway, "s1", 5, problems)


ORDERS = Orders(cast("Any", Checking()))


def generate(message: pb.GenerateRequest) -> Order:
    return ORDERS.generate(message)[0]


def stream(message: pb.StreamRequest) -> Order:
    return asyncio.run(ORDERS.stream(message, ""))[0]


def live(message: pb.LiveRequest) -> Order:
    return asyncio.run(ORDERS.live(message, ""))[0]


READERS: dict[str, Any] = {"generate": generate, "stream": stream, "live": live, "control": control}


def spec(**changes: Any) -> pb.VideoSpec:
    return pb.VideoSpec(**{"prompt": "a red circle", "seconds": 2.0, **changes})


def violations_of(kind: str, message: Any) -> tuple[FieldViolation, ...]:
    with pytest.raises(InvalidRequest) as invalid:
        READERS[kind](message)
    return invalid.value.violations


BAD_SPECS = [
    ("prompt", "", "at least 1 character", "''"),
    ("prompt", " \t\n\u3000", "at least 1 character", "u3000"),
    ("prompt", "x" * 100_000, "at most 4096 bytes", "100000"),
    ("prompt", "é" * 2049, "at most 4096 bytes", "4098"),
    ("prompt", "bell\x07", "no control character", "x07"),
    ("prompt", "nul\x00", "no control character", "x00"),
    ("prompt", "c1\x85", "no control character", "x85"),
    ("model", "sora", "one of millrace-64", "'sora'"),
    ("model", "m" * 5000, "one of millrace-64", "mmm..."),
    ("seconds", 1e9, "to", "1e+09"),
    ("seconds", -1.0, "from", "-1"),
    ("seconds", math.nan, "from", "nan"),
    ("seconds", math.inf, "from", "inf"),
    ("seconds", -math.inf, "from", "-inf"),
    ("width", 63, "must be 64", "63"),
    ("width", 2**32 - 1, "must be 64", "4294967295"),
    ("height", 128, "must be 64", "128"),
    ("steps", 17, "from 1 to 16", "17"),
    ("steps", 2**32 - 1, "from 1 to 16", "4294967295"),
]


@pytest.mark.parametrize(("field", "value", "limit", "shown"), BAD_SPECS)
@pytest.mark.parametrize("kind", ["generate", "stream", "live"])
def test_each_bad_field_is_named_with_limit_and_value(kind: str, field: str, value: Any, limit: str, shown: str) -> None:
    bad = spec(**{field: value})
    messages = {
        "generate": pb.GenerateRequest(spec=bad),
        "stream": pb.StreamRequest(spec=bad),
        "live": pb.LiveRequest(start=pb.LiveStart(spec=bad)),
    }

    (violation,) = violations_of(kind, messages[kind])

    assert violation.field == ("start.spec." if kind == "live" else "spec.") + field
    assert limit in violation.description
    assert shown in violation.description
    assert len(violation.description) < 300


@pytest.mark.parametrize(("kind", "limit"), [("generate", "60"), ("stream", "3600")])
def test_zero_seconds_need_a_length_but_in_live(kind: str, limit: str) -> None:
    messages = {"generate": pb.GenerateRequest(spec=spec(seconds=0)), "stream": pb.StreamRequest(spec=spec(seconds=0))}

    assert violations_of(kind, messages[kind]) == (FieldViolation("spec.seconds", f"must be a number from more than 0 to {limit}; got 0"),)
    order = live(pb.LiveRequest(start=pb.LiveStart(spec=spec(seconds=0))))
    assert order.request.num_frames is None


def test_the_limits_themselves_are_allowed() -> None:
    top = spec(prompt="x" * 4096, seconds=60.0, width=64, height=64, steps=16, seed=U64_MAX, model=CONFIG.name)

    order = generate(pb.GenerateRequest(spec=top))

    assert order.request.num_frames == 60 * 24
    assert (order.request.num_steps, order.request.seed, order.request.codec) == (16, U64_MAX, Codec.RAW_RGB)
    stream(pb.StreamRequest(spec=spec(seconds=3600), max_lead_seconds=30))


def test_everything_wrong_is_told_at_once() -> None:
    message = pb.StreamRequest(spec=spec(prompt="", seconds=-1, width=1, height=1, steps=99), max_lead_seconds=-1)
    message.codec = 77  # type: ignore[assignment]  # an enum number that a newer client may send

    assert [v.field for v in violations_of("stream", message)] == [
        "codec", "max_lead_seconds", "spec.prompt", "spec.seconds", "spec.width", "spec.height", "spec.steps",
    ]  # fmt: skip


@pytest.mark.parametrize("lead", [-0.1, 30.01, 1e9, math.nan, math.inf])
def test_max_lead_is_bounded(lead: float) -> None:
    (stream,) = violations_of("stream", pb.StreamRequest(spec=spec(), max_lead_seconds=lead))
    (live,) = violations_of("live", pb.LiveRequest(start=pb.LiveStart(spec=spec(), max_lead_seconds=lead)))

    assert (stream.field, live.field) == ("max_lead_seconds", "start.max_lead_seconds")
    assert "from 0 to 30; got" in stream.description


@pytest.mark.parametrize("number", [4, -1, 2**31 - 1])
def test_an_unknown_codec_is_named_with_those_known(number: int) -> None:
    message = pb.LiveRequest(start=pb.LiveStart(spec=spec(), codec=number))  # type: ignore[arg-type]

    (violation,) = violations_of("live", message)

    assert violation.field == "start.codec"
    assert "CODEC_JPEG (2)" in violation.description
    assert violation.description.endswith(f"got {number}")


@pytest.mark.parametrize(("kind", "message"), [("generate", pb.GenerateRequest()), ("stream", pb.StreamRequest())])
def test_a_request_without_spec(kind: str, message: Any) -> None:
    assert violations_of(kind, message) == (FieldViolation("spec", "is required; got none"),)


def test_a_request_without_spec_says_what_else_is_wrong() -> None:
    message = pb.StreamRequest(max_lead_seconds=-1, max_message_bytes=1)
    message.codec = 77  # type: ignore[assignment]  # an enum number that a newer client may send
    assert {v.field for v in violations_of("stream", message)} == {"codec", "max_lead_seconds", "max_message_bytes", "spec"}


def test_a_live_begins_with_start_and_has_one() -> None:
    assert violations_of("live", pb.LiveRequest(pause=pb.Pause()))[0].field == "start"
    assert violations_of("live", pb.LiveRequest())[0].field == "start"
    assert violations_of("live", pb.LiveRequest(start=pb.LiveStart()))[0].field == "start.spec"
    assert violations_of("control", pb.LiveRequest(start=pb.LiveStart(spec=spec())))[0].field == "start"
    assert violations_of("control", pb.LiveRequest())[0].field == "action"


def test_controls_become_plain() -> None:
    cases = [
        (pb.LiveRequest(prompt=pb.PromptChange(prompt="a blue square", request_id=3)), ChangePrompt("a blue square", 3)),
        (pb.LiveRequest(prompt=pb.PromptChange(prompt="a star", replace_from=0)), ChangePrompt("a star", 0, 0)),
        (pb.LiveRequest(pause=pb.Pause()), Pause()),
        (pb.LiveRequest(resume=pb.Resume()), Resume()),
        (pb.LiveRequest(stop=pb.Stop()), Stop()),
    ]
    for message, plain in cases:
        assert control(message) == plain


def test_every_event_has_a_message() -> None:
    assert {*MESSAGES, Frames} == {*get_args(Event), *get_args(Shown)}
    for response, events in ((pb.LiveResponse, Event), (pb.WatchResponse, Shown)):
        for event in {*get_args(events)} - {Frames}:
            assert MESSAGES[event][0] in response.DESCRIPTOR.fields_by_name


def test_unset_fields_take_the_defaults() -> None:
    order = stream(pb.StreamRequest(spec=spec()))
    steered = live(pb.LiveRequest(start=pb.LiveStart(spec=spec())))

    assert (order.request.seed, order.request.num_steps, order.request.codec) == (5, CONFIG.num_steps, Codec.JPEG)
    assert (order.max_lead_s, steered.max_lead_s) == (0.0, LIMITS.live_lead_seconds)
    assert order.request.session_id == "s1"
    assert stream(pb.StreamRequest(spec=spec(seed=0))).request.seed == 0


@given(st.floats(min_value=0, exclude_min=True, max_value=3600))
def test_a_valid_length_gives_at_least_one_frame_and_the_nearest_count(seconds: float) -> None:
    frames = stream(pb.StreamRequest(spec=spec(seconds=seconds))).request.num_frames

    assert frames is not None
    assert frames >= 1
    assert frames == 1 or abs(frames - seconds * CONFIG.fps) <= 0.5


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    parser = RequestParser()
    for kind in (pb.GenerateRequest, pb.StreamRequest, pb.LiveRequest, pb.ListModelsRequest):
        try:
            parser.parse(kind, data)
        except InvalidRequest as error:
            assert error.violations  # noqa: PT017 - either outcome is right


@given(st.data())
def test_a_cut_request_never_passes_as_the_whole_one(data: st.DataObject) -> None:
    whole = pb.LiveRequest(start=pb.LiveStart(spec=spec(seed=3), codec=pb.CODEC_JPEG)).SerializeToString()
    cut = data.draw(st.integers(1, len(whole) - 1))

    with pytest.raises(InvalidRequest, match=rf"LiveRequest: must be a complete headrace.v1.LiveRequest message; got {cut} bytes"):
        RequestParser().parse(pb.LiveRequest, whole[:cut])


def broken(message: Any) -> bytes:
    data: bytes = message.SerializeToString().replace(b"BROKEN", b"\xff\xfeOKEN")
    return data


def test_broken_utf8_is_named_by_field() -> None:
    cases = [
        (pb.GenerateRequest(spec=spec(prompt="a BROKEN circle")), "spec.prompt"),
        (pb.StreamRequest(spec=spec(model="BROKEN")), "spec.model"),
        (pb.LiveRequest(start=pb.LiveStart(spec=spec(prompt="BROKEN"))), "start.spec.prompt"),
        (pb.LiveRequest(prompt=pb.PromptChange(prompt="BROKEN")), "prompt.prompt"),
    ]
    for message, path in cases:
        with pytest.raises(InvalidRequest) as invalid:
            RequestParser().parse(type(message), broken(message))
        (violation,) = invalid.value.violations
        assert violation.field == path
        assert "must be UTF-8; got b'" in violation.description
        assert "xff" in violation.description

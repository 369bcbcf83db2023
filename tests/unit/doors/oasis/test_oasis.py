"""Oasis sessions out of plain stubs: four unary calls, VP9 packets that a decoder shows one by one, errors inside the answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import av
import grpc
import grpc.aio
import numpy as np
import pytest
from av.packet import Packet
from numpy.typing import NDArray

from doors.grpc.oasis import a2v_pb2 as pb
from doors.grpc.oasis.room import SERVICE_NAME, TARGET_KEY
from doors.grpc.oasis.session import STREAMS, keys_of
from doors.grpc.oasis.vp9 import Vp9Encoder
from model_core.presets import millrace_64_world
from tests.fakes import FakeDenoiser, FakeStages
from tests.pictures import moving
from tests.served import Served, serving

PATIENCE_S = 60.0

CONFIG = FakeStages().config
FORWARD = [pb.Action(throttle=0.2, steering=0.1)] * 4


class Client:
    """The four calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.target = ""

    async def call(self, name: str, message: Any, metadata: Sequence[tuple[str, str]] = ()) -> Any:
        answers = getattr(pb, f"{name}Response")
        stub: Any = self._channel.unary_unary(f"/{SERVICE_NAME}/{name}", type(message).SerializeToString, answers.FromString)
        call = stub(message, metadata=metadata)
        async with asyncio.timeout(20):
            answer = await call
        found = dict(await call.initial_metadata()).get(TARGET_KEY)
        self.target = self.target if found is None else str(found)
        return answer

    async def begun(self, prompt: str = "a red circle", formats: Sequence[pb.FrameFormat] = (pb.FRAME_FORMAT_VP9,)) -> str:
        """A session with a scene."""
        opened = await self.call("Initialize", pb.InitializeRequest(accepted_output_formats=formats))
        assert not opened.HasField("error"), opened.error
        answer = await self.call("Prompt", pb.PromptRequest(session_id=opened.session_id, prompt=prompt))
        assert not answer.HasField("error"), answer.error
        return str(opened.session_id)

    async def infer(self, session: str, number: int, actions: Sequence[pb.Action] = FORWARD) -> Any:
        return await self.call("Infer", pb.InferRequest(session_id=session, sequence_num=number, actions=actions))


@asynccontextmanager
async def client(served: Served) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield Client(channel)


def decoded(packets: Sequence[bytes], decoder: av.VideoCodecContext | None = None) -> list[NDArray[np.uint8]]:
    """One frame a packet, or the packet is bad."""
    decoder = decoder or av.VideoCodecContext.create("vp9", "r")
    frames: list[NDArray[np.uint8]] = []
    for packet in packets:
        (frame,) = decoder.decode(Packet(packet))
        frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
    return frames


def code(answer: Any) -> str:
    assert answer.HasField("error")
    return pb.ErrorCode.Name(answer.error.code).removeprefix("ERROR_CODE_")


async def test_a_session_is_initialised_prompted_driven_and_finished() -> None:
    async with serving() as served, client(served) as here:
        opened = await here.call(
            "Initialize", pb.InitializeRequest(client_sdk_version="0.0.2", api_key="any", accepted_output_formats=[pb.FRAME_FORMAT_VP9])
        )
        assert [(s.name, s.type, s.height, s.width) for s in opened.streams] == [
            (name, pb.SENSOR_TYPE_RGB, CONFIG.height, CONFIG.width) for name in ("left_forward", "front", "right_forward")
        ]
        assert opened.output_format == pb.FRAME_FORMAT_VP9
        assert here.target
        assert not (await here.call("Prompt", pb.PromptRequest(session_id=opened.session_id, prompt="a road"))).HasField("error")
        decoder = av.VideoCodecContext.create("vp9", "r")
        for number in range(8):
            answer = await here.infer(opened.session_id, number)
            assert answer.sequence_num == number
            assert [stream.name for stream in answer.streams] == list(STREAMS)
            frames = decoded(answer.streams[1].frames, decoder)
            assert [frame.shape for frame in frames] == [(CONFIG.height, CONFIG.width, 3)] * 4
            assert answer.streams[0].frames == answer.streams[1].frames == answer.streams[2].frames
        assert not (await here.call("Finish", pb.FinishRequest(session_id=opened.session_id))).HasField("error")
        await served.nothing_left()
        assert served.metric("calls_total", rpc="oasis.Infer", outcome="completed") == 8


async def test_frames_are_those_of_any_other_door() -> None:
    async with serving() as served, client(served) as here:
        session = await here.begun()
        answers = [await here.infer(session, number) for number in range(6)]
        decoder = av.VideoCodecContext.create("vp9", "r")
        seen = [frame for answer in answers for frame in decoded(answer.streams[1].frames, decoder)]
        events = [event async for event in served.client.stream("a red circle", seconds=1.0)]
        own = b"".join(item for event in events for item in getattr(event, "data", ()))
        shaped = np.frombuffer(own, np.uint8).reshape(-1, CONFIG.height, CONFIG.width, 3)
        # VP9 loses something, but no frame, and it shows none twice. The pictures are noise, which compresses badly.
        for index, frame in enumerate(seen):
            errors = [float(np.abs(frame.astype(int) - other.astype(int)).mean()) for other in shaped]
            assert int(np.argmin(errors)) // CONFIG.grid.factor == index // CONFIG.grid.factor


async def test_jpeg_is_what_one_gets_who_takes_nothing_else() -> None:
    async with serving() as served, client(served) as here:
        session = await here.begun(formats=[pb.FRAME_FORMAT_H264, pb.FRAME_FORMAT_JPEG])
        answer = await here.infer(session, 0)
        assert all(frame.startswith(b"\xff\xd8\xff") for frame in answer.streams[0].frames)
        refused = await here.call("Initialize", pb.InitializeRequest(accepted_output_formats=[pb.FRAME_FORMAT_H264]))
        assert code(refused) == "INVALID_FORMAT"


def test_throttle_and_steering_are_arrow_keys() -> None:
    def keys(*actions: tuple[float, float]) -> tuple[str, ...]:
        return keys_of([pb.Action(throttle=throttle, steering=steering) for throttle, steering in actions])

    assert keys((0.5, 0.0)) == ("up",)
    assert keys((-0.5, 1.0)) == ("down", "right")
    assert keys((0.05, -0.3)) == ("left",)
    assert keys((1.0, 0.1), (-1.0, 0.1)) == ()


async def test_a_world_moves_as_the_actions_say_from_the_frames_that_follow_them() -> None:
    config = millrace_64_world()

    def stages(fail_after: tuple[int, ...] = ()) -> FakeStages:
        return FakeStages(FakeDenoiser(config, fail_after=fail_after), config=config)

    async def driven(world: FakeStages) -> list[list[bytes]]:
        forward, left, none = [[pb.Action(throttle=t, steering=s)] * 4 for t, s in ((1.0, 0.0), (0.0, -1.0), (0.0, 0.0))]
        async with serving(world) as served, client(served) as here:
            session = await here.begun(formats=(pb.FRAME_FORMAT_JPEG,))
            told = (forward, forward, forward, forward, left, left, none, none)
            answers = [await here.infer(session, number, actions) for number, actions in enumerate(told)]
            await here.call("Finish", pb.FinishRequest(session_id=session))
            await served.nothing_left()
        return [list(answer.streams[1].frames) for answer in answers]

    world = stages()
    frames = await driven(world)
    # A leg that ends because of an act may have begun a chunk more.
    assert list(dict.fromkeys(context.keys for context in world.denoiser.contexts if context.keys)) == [("up",), ("left",)]
    first = {context.keys: context.next_chunk for context in reversed(world.denoiser.contexts)}
    assert (first[("up",)], first[("left",)], world.denoiser.contexts[-1].keys) == (0, 2, ())
    assert await driven(stages(fail_after=(1, 0))) == frames, "a replica that dies changes no frame"
    async with serving() as served, client(served) as here:  # a model without keys is not told of them
        session = await here.begun()
        assert not (await here.infer(session, 0)).HasField("error")
        assert all(not context.keys for context in served.stages.denoiser.contexts)


async def test_an_answer_that_got_lost_is_given_again() -> None:
    async with serving() as served, client(served) as here:
        session = await here.begun()
        first = await here.infer(session, 0)
        assert await here.infer(session, 0) == first
        assert (await here.infer(session, 1)).streams[1].frames != first.streams[1].frames
        wrong = await here.infer(session, 5)
        assert code(wrong) == "INVALID_REQUEST"
        assert "must be 2; got 5" in wrong.error.message


async def test_a_prompt_begins_a_scene_anew() -> None:
    async with serving() as served, client(served) as here:
        session = await here.begun("a red circle")
        first = await here.infer(session, 0)
        await here.infer(session, 1)
        assert not (await here.call("Prompt", pb.PromptRequest(session_id=session, prompt="a blue square"))).HasField("error")
        other = await here.infer(session, 0)
        assert len(decoded(other.streams[1].frames)) == 4, "the scene begins with a frame that needs none before it"
        assert other.streams[1].frames != first.streams[1].frames
        assert served.desk.statistics().live == 1


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (FORWARD[:3], "actions: must be 4; got 3"),
        ([*FORWARD[:3], pb.Action(throttle=2.0)], "actions.throttle: must be a number from -1 to 1; got 2"),
        ([*FORWARD[:3], pb.Action(steering=float("nan"))], "actions.steering"),
    ],
)
async def test_bad_actions_are_named(actions: list[pb.Action], said: str) -> None:
    async with serving() as served, client(served) as here:
        session = await here.begun()
        answer = await here.infer(session, 0, actions)
        assert code(answer) == "INVALID_REQUEST"
        assert said in answer.error.message
        assert not (await here.infer(session, 0)).HasField("error")


async def test_errors_are_part_of_the_answers() -> None:
    async with serving() as served, client(served) as here:
        opened = await here.call("Initialize", pb.InitializeRequest())
        assert code(await here.infer(opened.session_id, 0)) == "PROMPT_SET"
        empty = await here.call("Prompt", pb.PromptRequest(session_id=opened.session_id, prompt=" "))
        assert code(empty) == "INVALID_REQUEST"
        assert "prompt" in empty.error.details
        assert code(await here.infer("nobody", 0)) == "INVALID_SESSION"
        assert code(await here.call("Finish", pb.FinishRequest(session_id="nobody"))) == "INVALID_SESSION"
        await here.call("Finish", pb.FinishRequest(session_id=opened.session_id))
        assert code(await here.infer(opened.session_id, 0)) == "ALREADY_FINISHED"
        elsewhere = await here.call("Infer", pb.InferRequest(session_id="x", actions=FORWARD), [(TARGET_KEY, "other")])
        assert "another front door" in elsewhere.error.message
        assert served.metric("calls_total", rpc="oasis.Infer", outcome="invalid") == 4


async def test_a_full_server_says_so_and_when_to_come_again() -> None:
    async with serving(max_sessions=1, max_waiting=0) as served, client(served) as here:
        first = await here.begun()
        opened = await here.call("Initialize", pb.InitializeRequest())
        answer = await here.call("Prompt", pb.PromptRequest(session_id=opened.session_id, prompt="x"))
        assert answer.error.details["kind"] == "refused"
        assert float(answer.error.details["retry_after_seconds"]) > 0
        await here.call("Finish", pb.FinishRequest(session_id=first))
        await served.nothing_left()
        assert not (await here.call("Prompt", pb.PromptRequest(session_id=opened.session_id, prompt="x"))).HasField("error")


async def test_a_stage_that_stays_away_is_an_error_of_infer() -> None:
    stages = FakeStages(denoiser=FakeDenoiser(CONFIG, fail_after=(1, 0, 0, 0)))
    async with serving(stages) as served, client(served) as here:
        session = await here.begun()
        per_chunk = CONFIG.frames_per_chunk // 4
        for number in range(per_chunk):
            assert not (await here.infer(session, number)).HasField("error")
        answer = await here.infer(session, per_chunk)
        assert answer.error.details["kind"] == "unavailable"
        await served.nothing_left()


async def test_a_session_that_nobody_uses_ends() -> None:
    async with serving(oasis_idle_s=0.1) as served, client(served) as here:
        session = await here.begun()
        answer = await here.infer(session, 0)
        async with asyncio.timeout(PATIENCE_S):
            for number in itertools.count(1):
                if answer.HasField("error"):
                    break
                await asyncio.sleep(0.5)  # longer than the session may stand idle; how long its end takes is the machine's affair
                answer = await here.infer(session, number)
        assert code(answer) == "INVALID_SESSION"
        assert "idle" in answer.error.message or "no action" in answer.error.message


async def test_no_more_sessions_than_may_are_open() -> None:
    async with serving(oasis_sessions=2) as served, client(served) as here:
        for _ in range(2):
            assert not (await here.call("Initialize", pb.InitializeRequest())).HasField("error")
        refused = await here.call("Initialize", pb.InitializeRequest())
        assert "2 sessions are open" in refused.error.message


async def test_the_server_stops_although_sessions_are_open() -> None:
    async with serving() as served, client(served) as here:
        session = await here.begun()
        await here.infer(session, 0)
        async with asyncio.timeout(20):
            await served.server.drain(grace_s=0)
        await served.nothing_left()


def test_vp9_has_a_packet_for_each_frame_and_none_is_hidden() -> None:
    frames = moving(48)
    encoder = Vp9Encoder(64, 64, 24)
    packets = [packet for at in range(0, 48, 4) for packet in encoder.encode([frame.tobytes() for frame in frames[at : at + 4]])]
    shown = decoded(packets)
    assert len(packets) == len(shown) == 48
    assert max(float(np.abs(a.astype(int) - b.astype(int)).mean()) for a, b in zip(shown, frames, strict=True)) < 12


def test_a_fresh_frame_needs_none_before_it() -> None:
    encoder = Vp9Encoder(64, 64, 24)
    pictures = [frame.tobytes() for frame in moving(12)]
    encoder.encode(pictures[:8])
    assert len(decoded(encoder.encode(pictures[8:], fresh=True))) == 4

"""Receivers that are lost, that stall, and that come back, on a clock that tests move; and what URLs may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from model_core.access_units import Group, Header
from service.broadcast.backoff import Backoff
from service.broadcast.destination import destination, destinations
from service.broadcast.output import Output, SinkFailed, run_outputs
from service.broadcast.program import Program
from tests.broadcasts import CHUNK, FPS, frames, group, started
from tests.fakes import ManualClock, eventually

CHUNK_S = CHUNK / FPS


def test_waits_double_up_to_a_bound_and_differ_by_chance() -> None:
    backoff = Backoff(first_s=0.5, most_s=30.0)
    assert [backoff.delay(n, 0.0) for n in (1, 2, 3, 7, 8, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0, 30.0]
    assert backoff.delay(3, 1.0) == 1.0


@dataclass
class FakeReceiver:
    """What happens to each connection, in turn: "refuses", "loses" at its second group, "stalls" at its first, or is "fine"."""

    fates: list[str]
    taken: list[list[int]] = field(default_factory=list)
    closed: int = 0
    aborted: int = 0

    async def open(self, header: Header) -> FakeSink:
        fate = self.fates.pop(0)
        if fate == "refuses":
            raise SinkFailed("connection refused")
        self.taken.append([])
        return FakeSink(self, fate)


@dataclass
class FakeSink:
    receiver: FakeReceiver
    fate: str

    async def send(self, group: Group) -> None:
        taken = self.receiver.taken[-1]
        if self.fate == "stalls":
            await asyncio.Event().wait()
        if self.fate == "loses" and taken:
            raise SinkFailed("broken pipe")
        taken.append(group.first_frame)

    async def close(self) -> None:
        self.receiver.closed += 1

    async def abort(self) -> None:
        self.receiver.aborted += 1


@asynccontextmanager
async def playing(*receivers: FakeReceiver) -> AsyncGenerator[tuple[Program, ManualClock, list[Output], list[str]]]:
    clock, said = ManualClock(), list[str]()
    program = Program(clock, hold_s=0.0)
    outputs = [Output(f"r{n}", each.open, clock, lambda: 0.0, said.append, stall_s=3.0) for n, each in enumerate(receivers)]
    tasks = [asyncio.create_task(program.run()), asyncio.create_task(run_outputs(program, outputs))]
    program.see(started())
    await clock.advance(0.0)
    try:
        yield program, clock, outputs, said
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def play(program: Program, clock: ManualClock, first: int, count: int) -> None:
    for n in range(first, first + count):
        program.see(frames(n * CHUNK))
        await clock.advance(CHUNK_S)


async def test_a_lost_receiver_goes_on_with_the_newest_key_picture_and_the_session_s_times() -> None:
    receiver, other = FakeReceiver(["loses", "refuses", "fine"]), FakeReceiver(["fine"])
    async with playing(receiver, other) as (program, clock, outputs, said):
        await play(program, clock, 0, 12)
        program.end()
        await clock.advance(10.0)
        await eventually(lambda: receiver.closed == 1 and other.closed == 1)
    assert other.taken == [[n * CHUNK for n in range(12)]]
    # Lost at 1/3 s; refused 0.5 s later; and a second after that it begins with what is newest then.
    assert receiver.taken == [[0], [n * CHUNK for n in range(5, 12)]]
    assert (outputs[0].counts.connections, outputs[0].counts.failures) == (2, 2)
    assert outputs[0].counts.frames == 8 * CHUNK
    assert said[2:] == ["r0: broken pipe; tried again in 0.5 s", "r0: connection refused; tried again in 1.0 s", "r0: connected"]


async def test_a_receiver_that_takes_nothing_is_let_go_of() -> None:
    receiver = FakeReceiver(["stalls", "fine"])
    async with playing(receiver) as (program, clock, outputs, said):
        await play(program, clock, 0, 12)
        await eventually(lambda: receiver.aborted == 1)
        assert "r0: took nothing for 3 s; tried again in 0.5 s" in said
        await clock.advance(0.5)
        await play(program, clock, 12, 1)
        await eventually(lambda: receiver.taken[-1][-1:] == [96])
        assert receiver.taken[-1][0] >= 80
        assert outputs[0].counts.dropped > 0


async def test_a_receiver_that_ran_for_long_has_not_failed_before() -> None:
    receiver = FakeReceiver(["refuses", "refuses", "loses", "refuses"])
    async with playing(receiver) as (program, clock, _, said):
        await clock.advance(1.5)
        program.see(frames(0))
        await clock.advance(60.0)
        program.see(frames(8))
        await clock.advance(0.1)
        await eventually(lambda: len(said) == 4)
    assert [line.rpartition("in ")[2] for line in said if "tried" in line] == ["0.5 s", "1.0 s", "0.5 s"]


async def test_nobody_waits_for_a_receiver_when_the_session_is_over() -> None:
    receiver = FakeReceiver(["refuses"])
    async with playing(receiver) as (program, clock, outputs, _):
        program.end()
        await clock.advance(0.0)
        await eventually(lambda: program.over)
        assert outputs[0].counts.failures == 1
    assert receiver.fates == []


async def test_a_session_that_never_began_opens_nothing() -> None:
    clock, receiver = ManualClock(), FakeReceiver([])
    program = Program(clock)
    program.end()
    await program.run()
    await run_outputs(program, [Output("r", receiver.open, clock, lambda: 0.0)])
    assert receiver.taken == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtmp://live.example/app/secret-key", "rtmp://live.example/app/..."),
        ("RTMPS://user:password@live.example:444/a/b/secret?x=y", "rtmps://live.example:444/a/b/..."),
        ("udp://239.0.0.1:1234", "udp://239.0.0.1:1234"),
        ("srt://[::1]:9000?passphrase=very-secret", "srt://[::1]:9000"),
    ],
)
def test_names_of_receivers_hold_no_secret(url: str, name: str) -> None:
    assert destination("--to", url).name == name


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://a/b", "--to must begin with one of rtmp://, rtmps://, udp://, srt://; got 'http'"),
        ("live.example/app", "--to must begin with one of"),
        ("file:///etc/passwd", "got 'file'"),
        ("udp://host", "--to must name a port: udp://host:PORT"),
        ("udp://host:70000", "with a port from 1 to 65535"),
        ("udp://host:0", "with a port from 1 to 65535; got 0"),
        ("srt://:9000", "--to must name a host"),
        ("rtmp://host", "--to must name an application and a stream"),
        ("rtmp://[::1/app/key", "must be rtmp://HOST:PORT"),
        ("rtmp://host/app/key with space", "must have no spaces"),
        ("rtmp://host/" + "a" * 3000, "must have at most 2048 characters; got 3012"),
    ],
)
def test_what_is_no_receiver_is_refused(url: str, told: str) -> None:
    with pytest.raises(ValueError, match="--to") as error:
        destination("--to", url)
    assert told in str(error.value)


def test_receivers_are_few_and_differ() -> None:
    with pytest.raises(ValueError, match="--to must be given at most 8 times; got 9"):
        destinations("--to", [f"udp://host:{port}" for port in range(1, 10)])
    with pytest.raises(ValueError, match="got udp://host:1 twice"):
        destinations("--to", ["udp://host:1", "udp://host:1"])


def test_groups_of_tests_are_what_they_say() -> None:
    assert group(8).units[0].frame == 8

"""The processes that decode uploads: what a file does to its process, its sender is told, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_core.config import Media
from model_core.errors import InvalidRequest, StageUnavailable
from model_core.presets import millrace_64
from model_core.uploads.decoders import UploadDecoders
from model_core.uploads.decoding import decode
from model_core.uploads.places import FairPlaces
from model_core.uploads.upload import Upload, UploadLimits, Wanted
from tests.fakes import eventually
from tests.pictures import encoded, picture, video

CONFIG = replace(millrace_64(), media_frames=48)
STAND_IN = (sys.executable, str(Path(__file__).parents[2] / "stand_ins" / "decoding_process.py"))


def upload(words: str | bytes, kind: Media = "image", limits: UploadLimits | None = None) -> Upload:
    return Upload(kind, words.encode() if isinstance(words, str) else words, f"spec.{kind}", limits or UploadLimits())


@pytest.fixture
def obedient() -> Iterator[UploadDecoders]:
    with closing(UploadDecoders(1, command=STAND_IN)) as decoders:
        yield decoders


async def served(decoders: UploadDecoders) -> int:
    """How many files the process had that answers now, this one included."""
    return int((await decoders.footage(upload("frames"), CONFIG)).frames[0, 0, 0, 0])


async def told(decoders: UploadDecoders, words: str) -> str:
    with pytest.raises(InvalidRequest) as error:
        await decoders.footage(upload(words), CONFIG)
    (violation,) = error.value.violations
    assert violation.field == "spec.image"
    return violation.description


async def test_frames_are_those_of_the_decoder_in_this_process() -> None:
    with closing(UploadDecoders(1)) as decoders:
        for kind, data in (("image", encoded(picture())), ("video", video(16))):
            sent = upload(data, kind)  # type: ignore[arg-type]  # one of the two
            made = await decoders.footage(sent, CONFIG)
            np.testing.assert_array_equal(made.frames, np.stack(decode(data, Wanted.of(sent, CONFIG))))
        made = await decoders.footage(upload(video(19), "video"), CONFIG)
        assert len(made.frames) == 16, "whole chunks of its end"
        with pytest.raises(InvalidRequest, match="must be a whole PNG image"):
            await decoders.footage(upload(encoded(picture())[:300]), CONFIG)


@pytest.mark.parametrize(("kind", "data"), [("image", encoded(picture(1500, 2000), compress_level=1)), ("video", video(48, 24, 512, 512))])
async def test_what_needs_more_memory_than_a_file_may_have_is_refused(kind: Media, data: bytes) -> None:
    with closing(UploadDecoders(1)) as decoders:
        with pytest.raises(InvalidRequest, match=r"memory|cannot be decoded|ends the decoder"):
            await decoders.footage(upload(data, kind, UploadLimits(max_decode_bytes=1 << 20)), CONFIG)
        assert (await decoders.footage(upload(data, kind), CONFIG)).frames.shape[1:] == (64, 64, 3)


def test_limits_are_counted_from_what_is_in_use() -> None:
    script = """
import resource, sys
from model_core.uploads import worker
base = worker.address_space_bytes()
worker.limit(base, 1 << 30, 7)
print(resource.getrlimit(resource.RLIMIT_AS)[0] - base, resource.getrlimit(resource.RLIMIT_CPU)[0])
worker.limit(base, 1 << 29, 9)
print(resource.getrlimit(resource.RLIMIT_AS)[0] - base, resource.getrlimit(resource.RLIMIT_CPU)[0])
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory, seconds, less_memory, more_seconds = map(int, printed)
    assert (memory, less_memory) == (1 << 30, 1 << 29)
    assert 7 < seconds <= 8 + used.ru_utime + used.ru_stime
    assert more_seconds == seconds + 2


async def test_a_process_is_used_again_after_answers_and_refusals(obedient: UploadDecoders) -> None:
    assert [await served(obedient), await served(obedient)] == [1, 2]
    await told(obedient, "refuse")
    assert await served(obedient) == 4


async def test_a_process_gets_no_descriptors_and_no_secrets(obedient: UploadDecoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TEST_SECRET", "a password")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        fds, environment = (await told(obedient, "refuse")).removeprefix("[").split("] [")
    finally:
        os.close(reading)
        os.close(writing)
    assert fds == "'0', '1', '2', '3'"  # the last is the listing itself
    assert "HEADRACE_TEST_SECRET" not in environment


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("memory", f"must be decodable within {UploadLimits().max_decode_bytes} bytes of memory; got one that takes more"),
        (f"signal {signal.SIGXCPU.value}", "must be decodable within 5 s of processor time; got one that takes longer"),
        (f"signal {signal.SIGSEGV.value}", "must be an image that can be decoded; got one that ends the decoder"),
        ("lie", "must be an image that can be decoded; got one that ends the decoder"),
        ("babble", "must be an image that can be decoded; got one that ends the decoder"),
    ],
)
async def test_what_a_file_does_to_its_process_is_a_refusal_and_the_next_file_gets_a_new_one(
    obedient: UploadDecoders, words: str, sentence: str
) -> None:
    assert await served(obedient) == 1
    assert await told(obedient, words) == sentence
    assert await served(obedient) == 1


async def test_a_process_that_the_machine_ends_is_no_fault_of_the_file_which_is_decoded_once_more(
    obedient: UploadDecoders, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    assert len((await obedient.footage(upload(f"killed 1 {tries}"), CONFIG)).frames) == 1
    assert tries.stat().st_size == 2


async def test_a_file_whose_processes_the_machine_ends_is_not_decoded_for_ever(obedient: UploadDecoders, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    with pytest.raises(StageUnavailable, match="cannot be decoded just now"):
        await obedient.footage(upload(f"killed 9 {tries}"), CONFIG)
    assert tries.stat().st_size == 2
    assert await served(obedient) == 1


async def test_a_caller_that_leaves_takes_its_decoding_with_it(obedient: UploadDecoders, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    call = asyncio.create_task(obedient.footage(upload(f"sleep {started}"), CONFIG))
    await eventually(lambda: started.exists() and started.read_text() != "")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert await served(obedient) == 1


async def test_a_file_that_takes_too_long_by_the_clock_is_given_up(tmp_path: Path) -> None:
    too_long = pytest.raises(StageUnavailable, match=r"spec.image was not decoded within 0.01 s")
    with closing(UploadDecoders(1, within_s=0.01, command=STAND_IN)) as decoders, too_long:
        await decoders.footage(upload(f"sleep {tmp_path / 'pid'}"), CONFIG)


async def test_a_process_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    with closing(UploadDecoders(1, command=STAND_IN)) as decoders:
        assert await served(decoders) == 1
        fds = await told(decoders, "refuse")
        assert fds
        (process,) = decoders._idle  # noqa: SLF001 - it is to be killed as the machine would
        assert process._popen is not None  # noqa: SLF001
        process._popen.kill()  # noqa: SLF001
        process._popen.wait()  # noqa: SLF001
        assert await served(decoders) == 1


@pytest.mark.parametrize("command", [("/nonexistent/program",), (sys.executable, "-c", "print('hello')")])
async def test_a_decoder_that_does_not_start_is_no_fault_of_the_file(command: tuple[str, ...]) -> None:
    away = pytest.raises(StageUnavailable, match="uploads cannot be decoded just now")
    with closing(UploadDecoders(1, command=command)) as decoders, away:
        await decoders.footage(upload("frames"), CONFIG)


async def test_a_free_place_goes_to_the_caller_that_holds_fewest() -> None:
    places = FairPlaces(2)
    order: list[str] = []
    leave = {name: asyncio.Event() for name in "abcdefg"}

    async def hold(name: str, caller: str) -> None:
        async with places.place(caller):
            order.append(name)
            await leave[name].wait()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(hold(name, "greedy")) for name in "abcd"}
        await asyncio.sleep(0)
        tasks["e"] = group.create_task(hold("e", "modest"))
        await asyncio.sleep(0)
        assert order == ["a", "b"]
        tasks["c"].cancel()
        leave["a"].set()
        await eventually(lambda: len(order) == 3)
        assert order == ["a", "b", "e"], "though it came last"
        leave["b"].set()
        await eventually(lambda: len(order) == 4)
        assert order[-1] == "d", "the one before it has left the line"
        for event in leave.values():
            event.set()

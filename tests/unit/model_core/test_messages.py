"""Messages between two versions of the program: understood, or refused; never misread."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deployments.links.link import LinkOffer
from deployments.links.wishes import Avoid, Only
from model_core import types
from model_core.errors import CapacityExceeded, ChunkFailed, FieldViolation, InvalidRequest, StageDraining, StageUnavailable
from model_core.messages import GENERATION, WIRE_NAMES, Message, MessageEnum, read_message
from model_core.types import (
    Codec,
    Conditioning,
    Footage,
    FrameChunk,
    Guidance,
    LatentChunk,
    Numerics,
    Restyle,
    SessionContext,
    SourceFootage,
    SourceOffer,
    StageTiming,
    TextEmbedding,
)
from observability.context import NOBODY, work, work_for

LATENTS = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
TIMING = StageTiming("denoiser", 0.1, 0.2, 0.05, left_at=3.0, steps_s=(0.1, 0.0))
EMBEDDING = TextEmbedding("a", np.ones((2, 3), np.float32), np.ones(2, np.bool_), TIMING)
RESTYLE = Restyle(0.5, SourceOffer(b"token", "::1", 7))
FULL = SessionContext(
    "s", 7, 4, EMBEDDING, next_chunk=3, num_frames=48, suffix=(LATENTS,), sink=(LATENTS,), codec=Codec.JPEG, due_s=0.5, suspect_chunk=3,
    given=Conditioning(LATENTS, {"mask": LATENTS}), numerics=Numerics("a", "b"), guidance=Guidance(3.0, EMBEDDING), restyle=RESTYLE,
)  # fmt: skip
MESSAGES: tuple[Any, ...] = (
    TIMING, EMBEDDING, FULL, SessionContext("s", 7, 4, EMBEDDING), Footage(np.zeros((1, 2, 2, 3), np.uint8)), Conditioning(),
    LatentChunk(2, LATENTS, (TIMING,)), FrameChunk(0, 0, 8, 4, 4, Codec.FMP4_H264, (b"x",), LATENTS, (TIMING,)),
    LinkOffer("::1", 7, b"token", 1.0), Numerics("a", "b"), Guidance(3.0, EMBEDDING), Avoid(frozenset({"a"}), Numerics(text_encoder="c")),
    Only("a"),
    SourceFootage(2, np.zeros((1, 2, 2, 3), np.uint8)), RESTYLE.source, RESTYLE,
)  # fmt: skip


def arrives(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301 - made here


def plain(value: Any) -> Any:
    """Comparable with `==`."""
    if dataclasses.is_dataclass(value):
        return type(value), [(field.name, plain(getattr(value, field.name))) for field in dataclasses.fields(value)]
    if isinstance(value, np.ndarray):
        return value.dtype, value.tolist()
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return {name: plain(each) for name, each in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_of_the_same_version_arrives_as_it_was(message: Any) -> None:
    for copied in (arrives(pickle.dumps(message)), copy.copy(message), copy.deepcopy(message)):
        assert plain(copied) == plain(message)


def test_every_dataclass_that_crosses_stages_is_a_message() -> None:
    found = [
        kind
        for _, kind in inspect.getmembers(types, inspect.isclass)
        if dataclasses.is_dataclass(kind) and kind.__module__ == types.__name__
    ]
    assert len(found) >= 8
    assert [kind.__name__ for kind in found if not issubclass(kind, Message)] == []
    assert {type(message) for message in MESSAGES} == {*found, LinkOffer, Avoid, Only}


def test_each_message_keeps_the_name_that_it_has_on_the_wire() -> None:
    """Replicas of the version before write and read these names: a class may be renamed or moved, its name on the wire may not."""
    written = sorted(message.__reduce__()[1][0] for message in MESSAGES)
    assert sorted({*written, Codec.JPEG.__reduce_ex__(4)[1][0]}) == [
        "deployments.link:Ticket", "deployments.links.routing:Only", "deployments.routing:Avoid", *(f"model_core.types:{name}" for name in (
            "Codec", "Footage", "FrameChunk", "Given", "Guidance", "LatentChunk", "Numerics", "Restyle", "SessionContext",
            "SourceFootage", "SourceOffer", "StageTiming", "TextEmbedding",
        )),
    ]  # fmt: skip


def test_a_message_of_a_class_that_was_renamed_since_is_read() -> None:
    old = {"host": "::1", "port": 7, "token": b"token"}
    assert read_message("deployments.link:Ticket", GENERATION, old) == LinkOffer("::1", 7, b"token")
    assert plain(read_message("model_core.types:Given", GENERATION, {"head": LATENTS})) == plain(Conditioning(LATENTS))
    assert len(set(WIRE_NAMES.values())) == len(WIRE_NAMES)
    for code, wire in WIRE_NAMES.items():
        module, name = code.split(":")
        assert issubclass(getattr(import_module(module), name), Message), wire


Class = dict[str, Any]


@pytest.fixture
def schema() -> Iterator[ModuleType]:
    """A module whose classes can be replaced by those of another version, between writing and reading."""
    module = ModuleType("headrace_test_schema")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def version(schema: ModuleType, **fields: Any) -> Any:
    """From now on the module's message has these fields: a type, or a type and a default."""
    made = dataclasses.make_dataclass(
        "Sent",
        [(name, *(of if isinstance(of, tuple) else (of,))) for name, of in fields.items()],
        bases=(Message,), frozen=True, slots=True, namespace={"__module__": schema.__name__},
    )  # fmt: skip
    made.__module__ = schema.__name__
    schema.Sent = made  # type: ignore[attr-defined]
    return made


def test_fields_in_another_order_are_not_taken_for_one_another(schema: ModuleType) -> None:
    data = pickle.dumps(version(schema, seed=int, chunk=int)(seed=1, chunk=2))
    version(schema, chunk=int, codec=(str, "raw"), seed=(int, 0))
    read = arrives(data)
    assert (read.seed, read.chunk, read.codec) == (1, 2, "raw")


def test_a_new_field_that_is_not_in_use_is_understood_by_an_old_reader(schema: ModuleType) -> None:
    new = version(schema, seed=int, sink=(tuple, ()), due=(float | None, None))
    plain_one, used = pickle.dumps(new(1)), pickle.dumps(new(1, sink=(2,)))
    version(schema, seed=int)
    assert arrives(plain_one).seed == 1
    with pytest.raises(StageUnavailable, match="of another version was refused: headrace_test_schema:Sent with sink"):
        arrives(used)


def test_a_field_that_is_a_message_is_not_in_use_while_it_is_equal_to_its_default(schema: ModuleType) -> None:
    new = version(schema, seed=int, numerics=(Numerics, Numerics()), guidance=(Guidance, Guidance()))
    equal, used = pickle.dumps(new(1, Numerics(), Guidance())), pickle.dumps(new(1, Numerics(), Guidance(3.0, EMBEDDING)))
    version(schema, seed=int)
    assert arrives(equal).seed == 1
    with pytest.raises(StageUnavailable, match="Sent with guidance"):
        arrives(used)


def test_an_old_message_gets_the_new_reader_s_default_or_is_refused(schema: ModuleType) -> None:
    data = pickle.dumps(version(schema, seed=int)(1))
    version(schema, seed=int, sink=(tuple, (9,)))
    assert arrives(data).sink == (9,)
    version(schema, seed=int, sink=tuple)
    with pytest.raises(StageUnavailable, match="Sent without sink"):
        arrives(data)


def test_what_a_reader_does_not_have_at_all_is_refused(schema: ModuleType) -> None:
    data = pickle.dumps(version(schema, seed=int)(1))
    del schema.Sent
    with pytest.raises(StageUnavailable, match="refused: headrace_test_schema:Sent"):
        arrives(data)
    version(schema, seed=int)
    with pytest.raises(StageUnavailable, match=f"of generation {GENERATION + 1}, where this is {GENERATION}"):
        read_message("headrace_test_schema:Sent", GENERATION + 1, {"seed": 1})
    kinds: Any = MessageEnum
    schema.Kind = kinds("Kind", {"A": "a", "B": "b"}, module=schema.__name__)  # type: ignore[attr-defined]
    of_b = pickle.dumps(schema.Kind.B)
    assert arrives(of_b) is schema.Kind.B
    schema.Kind = kinds("Kind", {"A": "a"}, module=schema.__name__)  # type: ignore[attr-defined]
    with pytest.raises(StageUnavailable, match="refused: headrace_test_schema:Kind of 'b'"):
        arrives(of_b)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest((FieldViolation("spec.seconds", "must be positive; got 0"),)),
        CapacityExceeded("all 2 slots are taken", 1.5),
        ChunkFailed("chunk 3 is not finite", 3),
        StageDraining("the replica is about to stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_with_what_it_carries(error: Exception) -> None:
    read = arrives(pickle.dumps(error))
    assert (type(read), str(read), vars(read)) == (type(error), str(error), vars(error))


def test_an_error_that_a_reader_does_not_have_is_the_nearest_that_it_has(schema: ModuleType) -> None:
    """An old front door goes on with the session, whatever a new replica calls its trouble."""
    schema.Later = type("Later", (StageDraining,), {"__module__": schema.__name__})  # type: ignore[attr-defined]
    data = pickle.dumps(schema.Later("somewhere else, please"))
    assert type(arrives(data)) is schema.Later
    del schema.Later
    read = arrives(data)
    assert (type(read), str(read)) == (StageDraining, "somewhere else, please")


def test_a_caller_of_another_version_may_say_more_of_its_work() -> None:
    more: Any = ("session", "trace", "something new")
    work_for(more)
    assert work() == ("session", "trace")
    work_for(NOBODY)

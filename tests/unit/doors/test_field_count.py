"""Requests are counted before they are parsed: few bytes must not become much memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from doors.wire import messages
from doors.wire.field_count import field_count
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest

REQUESTS = (pb.GenerateRequest, pb.StreamRequest, pb.LiveRequest, pb.ListModelsRequest)


def descriptors(message: Any) -> Iterator[Any]:
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from descriptors(field.message_type)


def resume(acknowledged: int) -> pb.SessionResume:
    return pb.SessionResume(acknowledged=[pb.PromptAck(prompt="p", first_frame=8)] * acknowledged)


def test_all_fields_count_those_of_parts_and_unknown_ones_too() -> None:
    spec = pb.VideoSpec(prompt="a", seconds=1.5, seed=0, steps=3, image=b"\x08\x01" * 50)
    assert field_count(pb.StreamRequest(spec=spec, max_lead_seconds=1).SerializeToString(), pb.StreamRequest.DESCRIPTOR, 100) == 7
    message = pb.LiveRequest(start=pb.LiveStart(resume=resume(3)))
    assert field_count(message.SerializeToString(), pb.LiveRequest.DESCRIPTOR, 100) == 1 + 1 + 3 * 3
    unknown = b"\xf8\x07\x01\xf9\x0700000000\xfd\x070000\xfa\x07\x02ab\xfb\x07\xfc\x07"
    assert field_count(unknown, pb.StreamRequest.DESCRIPTOR, 100) == 6


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff", b"\x80" * 30, b"\x0f\x00\x00", b"\x0a\xff\xff\xff\xff\x0f\x08", b"\x09\x00"])
def test_what_is_garbled_is_counted_as_far_as_it_goes(data: bytes) -> None:
    assert field_count(data, pb.StreamRequest.DESCRIPTOR, 100) <= len(data)


def test_counting_ends_at_the_limit() -> None:
    data = b"\x10\x00" * 1_000_000
    assert field_count(data, pb.StreamRequest.DESCRIPTOR, 10) == 11


@pytest.mark.parametrize("rpc", REQUESTS)
def test_a_request_of_very_many_fields_is_refused_unparsed(rpc: type[messages.M]) -> None:
    parser = messages.RequestParser()
    with pytest.raises(InvalidRequest, match=f"{rpc.DESCRIPTOR.name}: must hold at most 4096 fields.*; got more, in"):
        parser.parse(rpc, b"\xfa\x07\x00" * 5000)


def test_a_resume_of_very_many_acknowledgements_is_refused_unparsed() -> None:
    parser = messages.RequestParser()
    for message in (pb.StreamRequest(resume=resume(3000)), pb.LiveRequest(start=pb.LiveStart(resume=resume(3000)))):
        with pytest.raises(InvalidRequest, match="must hold at most 4096 fields"):
            parser.parse(type(message), message.SerializeToString())
    assert len(parser.parse(pb.StreamRequest, pb.StreamRequest(resume=resume(40)).SerializeToString()).resume.acknowledged) == 40


def test_no_request_has_fields_that_one_tag_could_make_many_of() -> None:
    """Packed numbers would have to be counted by their bytes."""
    repeated = [f for rpc in REQUESTS for d in descriptors(rpc.DESCRIPTOR) for f in d.fields if f.is_repeated]
    assert repeated
    with_tags = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)  # each item has its own
    assert [f.full_name for f in repeated if f.type not in with_tags] == []

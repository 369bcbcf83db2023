"""Messages that botocore reads back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.http.bedrock import event_stream


def read(data: bytes) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


NAMES = st.text(min_size=1, max_size=20)


@given(headers=st.dictionaries(NAMES, st.text(max_size=100), max_size=4), payload=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_botocore_reads_back_headers_and_payload(headers: dict[str, str], payload: bytes) -> None:
    [message] = read(event_stream.message(headers, payload))
    assert (message.headers, message.payload) == (headers, payload)


@pytest.mark.parametrize("at", [3, 9, 14, -10, -1])
def test_botocore_notices_a_byte_that_is_wrong(at: int) -> None:
    data = bytearray(event_stream.message({"a": "b"}, b"0123456789"))
    data[at] ^= 1
    with pytest.raises(ChecksumMismatch):
        read(bytes(data))


@pytest.mark.parametrize("size", [0, 1, event_stream.MAX_PART_BYTES, event_stream.MAX_PART_BYTES + 1])
def test_parts_are_within_the_limit_and_make_the_whole(size: int) -> None:
    data = bytes(size)
    messages = read(b"".join(event_stream.parts(data)))
    parts = [base64.b64decode(json.loads(message.payload)["bytes"]) for message in messages]
    assert b"".join(parts) == data
    assert all(0 < len(part) <= event_stream.MAX_PART_BYTES for part in parts)
    assert all(message.headers[":event-type"] == "chunk" and message.headers[":message-type"] == "event" for message in messages)


def test_a_failure_is_an_exception_to_botocore() -> None:
    [message] = read(event_stream.failure("modelStreamErrorException", "no more"))
    answer = message.to_response_dict()
    assert answer["status_code"] == 400
    assert answer["headers"][":exception-type"] == "modelStreamErrorException"
    assert json.loads(answer["body"]) == {"message": "no more"}

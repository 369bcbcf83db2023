"""Amazon's event-stream encoding, as far as a response stream needs it: string headers, one message a part. Pure.

A message is its total length, the length of its headers, the CRC of these two, the headers, the payload, and the CRC of all before.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from zlib import crc32

MEDIA_TYPE = "application/vnd.amazon.eventstream"
MAX_PART_BYTES = 1_000_000  # of the bytes in one part, before they are base64

_LENGTHS = struct.Struct(">II")
_CRC = struct.Struct(">I")
_OVERHEAD_BYTES = _LENGTHS.size + 2 * _CRC.size
_STRING = 7


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    lengths = _LENGTHS.pack(_OVERHEAD_BYTES + len(encoded) + len(payload), len(encoded))
    checked = lengths + _CRC.pack(crc32(lengths)) + encoded + payload
    return checked + _CRC.pack(crc32(checked))


def parts(data: bytes) -> Iterator[bytes]:
    """`data` as messages of a response stream, in order, each within the limit of a part."""
    for start in range(0, len(data), MAX_PART_BYTES):
        text = base64.b64encode(data[start : start + MAX_PART_BYTES]).decode()
        headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
        yield message(headers, json.dumps({"bytes": text}).encode())


def failure(exception: str, sentence: str) -> bytes:
    """The last message of a stream that fails. `exception` is one of those that a response stream declares."""
    headers = {":exception-type": exception, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, json.dumps({"message": sentence}).encode())


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(">B", len(key)) + key + struct.pack(">BH", _STRING, len(text)) + text

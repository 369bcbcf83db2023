"""How many fields a serialized message holds, found without parsing it.

A part of a message may come as two bytes, and takes some sixty once it is parsed, and time. A request within its limits holds few fields,
even if some are large. So their number is checked first.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

# Wire types: a number, bytes with their length, and those of a fixed length; of a group, each field in it counts.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4, 3: 0, 4: 0}


def field_count(data: bytes, message: Any, most: int) -> int:
    """How many fields `data`, a message of the descriptor `message`, holds with all its parts. Counting stops beyond `most`.

    A cut or garbled message is counted as far as it can be read.
    """
    count = 0
    parts: list[tuple[int, int, Any]] = [(0, len(data), message)]
    while parts:
        at, end, kind = parts.pop()
        while at < end:
            count += 1
            if count > most:
                return count
            tag, at = _varint(data, at)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                _, at = _varint(data, at)
            elif wire_type == _BYTES:
                size, at = _varint(data, at)
                field = kind.fields_by_number.get(number)
                if field is not None and field.type == FieldDescriptor.TYPE_MESSAGE:
                    parts.append((at, min(at + size, end), field.message_type))
                at += size
            else:
                at += _FIXED.get(wire_type, len(data))
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    return 0, len(data)

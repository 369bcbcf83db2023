"""What an error says, cut to what every client takes. Pure functions.

Status, message and details travel as trailing headers. Clients refuse a call whose headers are larger than their limit, which is 8 KiB for
many, and report a status of their own; C-core's means "busy". Each byte of a character that is not plain ASCII travels as three.
"""

from __future__ import annotations

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

MAX_MESSAGE_BYTES = 2048  # as it travels
MAX_DETAILS_BYTES = 3600  # before base64, which adds a third; the message is among them
_MAX_DESCRIPTION_CHARS = 512
_DETAILS_KEY = "grpc-status-details-bin"
_PLAIN = range(0x20, 0x7F)
_ESCAPED_BYTES = 3


def short(message: str, spare: int = 0) -> str:
    """`message`, cut so that it travels in at most `MAX_MESSAGE_BYTES` less `spare`."""
    message, left = _text(message), MAX_MESSAGE_BYTES - spare
    for index, character in enumerate(message):
        plain = ord(character) in _PLAIN and character != "%"
        left -= 1 if plain else _ESCAPED_BYTES * len(character.encode())
        if left < 0:
            return message[:index]
    return message


def trailer(code: grpc.StatusCode, message: str, detail: Message | None) -> tuple[tuple[str, bytes], ...]:
    """The typed details of a status, as metadata. A long list of violations is cut; a last one without a field counts the rest."""
    status = status_pb2.Status(code=code.value[0], message=message)
    if isinstance(detail, error_details_pb2.BadRequest):
        status.details.add().Pack(_fitting(detail, MAX_DETAILS_BYTES - status.ByteSize()))
    elif detail is not None:
        status.details.add().Pack(detail)
    return ((_DETAILS_KEY, status.SerializeToString()),)


def _fitting(bad: error_details_pb2.BadRequest, room: int) -> error_details_pb2.BadRequest:
    kept = error_details_pb2.BadRequest()
    for index, violation in enumerate(bad.field_violations):
        added = kept.field_violations.add()
        added.field, added.description = violation.field, violation.description[:_MAX_DESCRIPTION_CHARS]
        if index and kept.ByteSize() + 128 > room:
            del kept.field_violations[-1]
            kept.field_violations.add().description = f"and {len(bad.field_violations) - index} more"
            break
    return kept


def _text(message: str) -> str:
    """Without halves of characters, which have no place in UTF-8."""
    return message.encode(errors="replace").decode()

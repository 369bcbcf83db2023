"""gRPC-Web's frames: a byte that says what follows, a length, and a message or the trailers. Pure.

As text, all of it is in base64; a caller may have padding in the middle, where one of its writes ended.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from model_core.errors import FieldViolation, InvalidRequest

HEAD_BYTES = 5

_MESSAGE, _TRAILERS, _COMPRESSED = 0x00, 0x80, 0x01


def message(data: bytes) -> bytes:
    """The frame of a message."""
    return bytes((_MESSAGE,)) + len(data).to_bytes(4) + data


def trailers(pairs: Sequence[tuple[str, str]]) -> bytes:
    """The last frame, which says how the call ended."""
    data = "".join(f"{name}:{value}\r\n" for name, value in pairs).encode("ascii")
    return bytes((_TRAILERS,)) + len(data).to_bytes(4) + data


def only_message(body: bytes, name: str) -> bytes:
    """The one message in a caller's body; `name` is what errors call it.

    Raises:
        InvalidRequest: there is none, or more than one, or it is compressed.
    """
    if len(body) < HEAD_BYTES:
        raise _problem(name, f"must come in a frame of gRPC-Web; got {len(body)} bytes")
    flags, size = body[0], int.from_bytes(body[1:HEAD_BYTES])
    if flags & _TRAILERS or flags & _COMPRESSED:
        raise _problem(name, f"must come in a frame that is neither compressed nor trailers; got flags {flags}")
    if len(body) - HEAD_BYTES != size:
        raise _problem(name, f"must be the one frame of the body; got {len(body) - HEAD_BYTES} bytes in a frame of {size}")
    return body[HEAD_BYTES:]


def from_text(body: bytes, name: str) -> bytes:
    """Raises InvalidRequest: it is no base64."""
    try:
        return b"".join(base64.b64decode(part + b"=" * (-len(part) % 4), validate=True) for part in _parts(body.strip()))
    except binascii.Error:
        raise _problem(name, f"must come in base64; got {len(body)} bytes that are none") from None


def _parts(text: bytes) -> list[bytes]:
    """Cut where padding ends one write of the caller's."""
    return [part for part in text.replace(b"==", b"=").split(b"=") if part]


def _problem(name: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(name, sentence),))

"""What a front process and its worker write to each other: one start, then groups, each of which is answered by a line.

Knows no muxer, so that whoever writes needs none.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass

_LENGTH = struct.Struct(">I")
_GROUP = struct.Struct(">QII")
_MOST_START_BYTES = 1024 * 1024
# Lines of a worker: it has connected, it has taken a group, it has ended in order; anything else says what went wrong.
CONNECTED, TAKEN, ENDED = "connected", "taken", "ended"
MOST_LINE_BYTES = 4096

Read = Callable[[int], bytes]
"""So many bytes; fewer at the end."""


class CutOff(Exception):
    """What was read ended in the middle."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker is to do.

    Attributes:
        url: see `service.broadcast.destination`.
        scheme, container: of the same.
        fps: frames a second.
        segment: `ftyp` and `moov` of the session, in hexadecimal.
        silent_audio: whether a track of silence goes beside the pictures.
        program: an FFmpeg that the worker pipes into; empty for none.
    """

    url: str
    scheme: str
    container: str
    fps: int
    segment: str
    silent_audio: bool = False
    program: str = ""


def write_start(start: Start) -> bytes:
    data = json.dumps(asdict(start)).encode()
    return _LENGTH.pack(len(data)) + data


def read_start(read: Read) -> Start:
    """Raises CutOff."""
    (length,) = _LENGTH.unpack(_exactly(read, _LENGTH.size))
    if length > _MOST_START_BYTES:
        raise CutOff(f"a start must have at most {_MOST_START_BYTES} bytes; got {length}")
    return Start(**json.loads(_exactly(read, length)))


def write_group(first_frame: int, count: int, fragment: bytes) -> bytes:
    return _GROUP.pack(first_frame, count, len(fragment)) + fragment


def read_group(read: Read) -> tuple[int, int, bytes] | None:
    """Its first frame, how many it has, and its fragment; None at the end. Raises CutOff."""
    head = read(_GROUP.size)
    if not head:
        return None
    if len(head) < _GROUP.size:
        raise CutOff("a group was cut off")
    first_frame, count, size = _GROUP.unpack(head)
    return first_frame, count, _exactly(read, size)


def _exactly(read: Read, size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise CutOff("a group was cut off")
    return data

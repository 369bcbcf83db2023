"""One chunk as bytes on the wires that have no messages of their own: length of the head, head in JSON, length of the frames, frames."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it arrived: `compute_s` is what its stages took on their devices, `data` its raw frames, one after the other."""

    first_frame: int
    frames: int
    compute_s: float
    data: bytes


def pack(first_frame: int, data: Sequence[bytes], compute_s: float) -> bytes:
    """`data`: one item a frame."""
    head = json.dumps({"first_frame": first_frame, "frames": len(data), "compute_s": compute_s}).encode()
    frames = b"".join(data)
    return _LENGTHS.pack(len(head), len(frames)) + head + frames


class Reader:
    """Takes bytes as they come, gives chunks as they are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, part: bytes) -> Iterator[Chunk]:
        self._buffer += part
        while len(self._buffer) >= _LENGTHS.size:
            head, frames = _LENGTHS.unpack_from(self._buffer)
            end = _LENGTHS.size + head + frames
            if len(self._buffer) < end:
                return
            about = json.loads(self._buffer[_LENGTHS.size : _LENGTHS.size + head])
            yield Chunk(about["first_frame"], about["frames"], about["compute_s"], bytes(self._buffer[_LENGTHS.size + head : end]))
            del self._buffer[:end]

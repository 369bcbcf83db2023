"""The process that decodes uploads: `python -m model_core.uploads.worker`, started and asked by `decoders`.

It limits its own memory and processor time, reads one file after the other from standard input, and writes what came of each to standard
output. It ends when its input does. Whoever started it kills it when a file takes too long or nobody wants it any more.

A message is its length (4 bytes, big-endian), that much JSON, and the bytes that the JSON announces: of a file on the way in, of frames on
the way out.
"""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")
_MAX_JSON_BYTES = 64 * 1024
_NICENESS = 10  # frames that are being made come first
_MAX_FILES = 16


class Ended(Exception):
    """The other side has closed its end."""


def read_exactly(source: BinaryIO, into: memoryview) -> None:
    """Raises Ended."""
    while into:
        count = source.readinto(into)  # type: ignore[attr-defined]  # every raw file has it
        if not count:
            raise Ended
        into = into[count:]


def read_bytes(source: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    read_exactly(source, memoryview(data))
    return data


def read_json(source: BinaryIO) -> dict[str, Any]:
    """Raises Ended, or ValueError for what is no message."""
    (size,) = LENGTH.unpack(read_bytes(source, LENGTH.size))
    if size > _MAX_JSON_BYTES:
        raise ValueError(f"{size} bytes of JSON")
    message = json.loads(read_bytes(source, size))
    if not isinstance(message, dict):
        raise ValueError(f"{type(message).__name__} for a message")  # noqa: TRY004 - it is the message that is wrong
    return message


def write(target: BinaryIO, message: dict[str, Any], parts: Iterable[Any] = ()) -> None:
    """`parts` are buffers, written as they are."""
    text = json.dumps(message).encode()
    for part in (LENGTH.pack(len(text)) + text, *parts):
        view = memoryview(part).cast("B")
        while view:
            view = view[target.write(view) :]


def limit(base_bytes: int, memory_bytes: int, seconds: int) -> None:
    """From now on, so much more memory and processor time than is in use."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _soft(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + seconds)
    _soft(resource.RLIMIT_AS, base_bytes + memory_bytes)


def address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _soft(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Decode what comes until `source` ends."""
    from model_core.uploads.decoding import decode  # noqa: PLC0415 - the protocol above is read without any decoder
    from model_core.uploads.upload import Refused, Wanted  # noqa: PLC0415

    base_bytes = address_space_bytes()
    write(target, {"ready": True})
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # decoders say there what they think of a file
    while True:
        job = read_json(source)
        data = bytes(read_bytes(source, job["bytes"]))
        frames: Sequence[Any] = ()
        limit(base_bytes + 2 * len(data), job["memory_bytes"], job["seconds"])
        try:
            frames = decode(data, Wanted(**job["wanted"]))
            answer: dict[str, Any] = {"frames": len(frames)}
        except Refused as refused:
            answer = {"refused": str(refused)}
        except MemoryError:
            answer = {"memory": True}
        write(target, answer, frames)


def main() -> None:
    os.nice(_NICENESS)
    for what, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, _MAX_FILES)):
        resource.setrlimit(what, (value, value))
    try:
        serve(open(0, "rb", buffering=0, closefd=False), open(1, "wb", buffering=0, closefd=False))  # noqa: SIM115 - the pipes
    except (Ended, BrokenPipeError):
        return


if __name__ == "__main__":
    main()

"""How large a message a caller takes, and chunks cut to fit. Pure functions; knows the wire, and neither gRPC nor sessions.

Clients of gRPC refuse messages of more than 4 MiB unless they are told otherwise, and report that with the status that means "busy".
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest

# What gRPC clients take unless they are told otherwise.
DEFAULT_BYTES = 4 * 1024 * 1024
MIN_BYTES = 64 * 1024
FIELD = "max_message_bytes"
# For all of a message but its media: indices and timings, Started in a Generate's answer.
ROOM_BYTES = 4096
_ITEM_BYTES = 8  # tag and length of one item


def media_bytes(limit: int) -> int:
    """How many bytes of media, as one item, fit into a message of `limit` bytes."""
    return limit - ROOM_BYTES - _ITEM_BYTES


def raw_frame_problem(width: int, height: int, limit: int) -> str | None:
    """Why raw frames of that size cannot be sent to a caller who takes `limit` bytes; None where they can."""
    needed = 3 * width * height + ROOM_BYTES + _ITEM_BYTES
    if needed <= limit:
        return None
    return (
        f"must be at least {needed} for a raw frame of {width}x{height}, and the client must take messages of that size; "
        f"or choose CODEC_JPEG or CODEC_FMP4_H264; got {limit}"
    )


def parts(frames: pb.Frames, limit: int, path: str = "") -> Iterator[pb.Frames]:
    """`frames` as messages of at most `limit` bytes; see `Frames` in the contract. What fits is left as it is.

    Raises:
        InvalidRequest: a frame alone is larger. It names the field, which is at `path` in the request.
    """
    if sum(len(item) + _ITEM_BYTES for item in frames.data) + ROOM_BYTES <= limit:
        yield frames
        return
    cut = _pieces(frames, media_bytes(limit)) if frames.codec == pb.CODEC_FMP4_H264 else _groups(frames, limit, path)
    for number, part in enumerate(cut):
        part.chunk_index, part.codec = frames.chunk_index, frames.codec
        if number == 0:
            part.timings.extend(frames.timings)
        yield part


def check_file(size: int, limit: int) -> None:
    """Raises InvalidRequest where a file of `size` bytes cannot be sent in one message."""
    if size > media_bytes(limit):
        sentence = (
            f"must be at least {size + ROOM_BYTES + _ITEM_BYTES} for this MP4; or take it from Stream with CODEC_FMP4_H264; got {limit}"
        )
        raise InvalidRequest((FieldViolation(FIELD, sentence),))


def _pieces(frames: pb.Frames, room: int) -> Iterator[pb.Frames]:
    """A fragment, in pieces of bytes."""
    fragment = memoryview(b"".join(frames.data))
    for begin in range(0, len(fragment), room):
        last = begin + room >= len(fragment)
        piece = bytes(fragment[begin : begin + room])
        yield pb.Frames(first_frame=frames.first_frame, frame_count=frames.frame_count if last else 0, data=[piece])


def _groups(frames: pb.Frames, limit: int, path: str) -> Iterator[pb.Frames]:
    """Frames that each are an item, as many together as fit."""
    room = limit - ROOM_BYTES
    begin = 0
    while begin < len(frames.data):
        end, size = begin, 0
        while end < len(frames.data) and (size := size + len(frames.data[end]) + _ITEM_BYTES) <= room:
            end += 1
        if end == begin:
            needed = len(frames.data[begin]) + _ITEM_BYTES + ROOM_BYTES
            sentence = f"must be at least {needed} for frame {frames.first_frame + begin} as {pb.Codec.Name(frames.codec)}; got {limit}"
            raise InvalidRequest((FieldViolation(f"{path}{FIELD}", sentence),))
        yield pb.Frames(first_frame=frames.first_frame + begin, frame_count=end - begin, data=frames.data[begin:end])
        begin = end

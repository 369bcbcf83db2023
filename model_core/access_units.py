"""Pictures out of fragments of MP4, as they are sent where there are no files: H.264 in Annex B, one access unit a picture.

Nothing is coded again: the NAL units are those of the fragment, bit for bit. The first picture of a fragment is a key picture, and has the
parameter sets of the header before it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import av
from av.bitstream import BitStreamFilterContext

_START = b"\x00\x00\x01"


def access_units(header: bytes, fragment: bytes) -> Sequence[bytes]:
    """One access unit for each picture of `fragment`, in order.

    Args:
        header: of the session, `ftyp` and `moov`.
        fragment: of the same session, `moof` and `mdat`.

    Raises:
        ValueError: they do not belong together, or hold no H.264.
    """
    try:
        with av.open(io.BytesIO(header + fragment), "r", format="mp4") as container:
            stream = container.streams.video[0]
            in_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
            packets = [packet for packet in container.demux(stream) if packet.size]
            return [bytes(unit) for packet in packets for unit in in_annex_b.filter(packet)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{len(fragment)} bytes are no fragment of H.264: {error}") from None


def nal_units(annex_b: bytes) -> Iterator[bytes]:
    """The NAL units of an access unit, without their start codes."""
    start = annex_b.find(_START)
    while start >= 0:
        start += len(_START)
        after = annex_b.find(_START, start)
        yield annex_b[start : len(annex_b) if after < 0 else after].rstrip(b"\x00")
        start = after

"""Playlists of HTTP Live Streaming, as text: RFC 8216, and its successor draft-pantos-hls-rfc8216bis for parts. Pure.

A part is one group; a segment is the groups of some seconds. Both begin with a key picture. Their names hold the session's own numbers,
so that every front door gives the same name to the same part of a session, at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from model_core.access_units import Group, Header

MULTIVARIANT, MEDIA, INIT = "index.m3u8", "media.m3u8", "init.mp4"
# Of segments that end with parts, how many target durations from the end parts are listed for; the least that is allowed.
_PARTS_FOR = 3
_HOLD_BACK_PARTS, _HOLD_BACK_SEGMENTS = 3, 3


@dataclass(frozen=True, slots=True)
class Shape:
    """How a session is cut.

    Attributes:
        part_frames: of every part but a session's first and last.
        segment_frames: of every segment but those.
    """

    fps: int
    part_frames: int
    segment_frames: int

    @classmethod
    def of(cls, header: Header, segment_s: float) -> Shape:
        """Segments of about `segment_s`, and at least one part."""
        parts = max(1, round(segment_s * header.fps / header.frames_per_chunk))
        return cls(header.fps, header.frames_per_chunk, parts * header.frames_per_chunk)

    @property
    def part_target(self) -> float:
        """EXT-X-PART-INF. No part is longer."""
        return _up(self.part_frames / self.fps, 5)

    @property
    def target_s(self) -> int:
        """EXT-X-TARGETDURATION. No segment is longer."""
        return max(1, math.ceil(self.segment_frames / self.fps - 1e-9))

    def segment(self, frame: int) -> int:
        """The number of the segment that has the group which begins with `frame`.

        A session's first group may be shorter than the others. Then it is a segment of its own, because a part that short may only be the
        last one of its segment.
        """
        shift = frame % self.part_frames
        return (frame - shift) // self.segment_frames + (1 if shift else 0)


@dataclass(slots=True)
class Segment:
    """Some groups, in order.

    Attributes:
        at: when the first of them went out, in seconds since 1970.
        whole: nothing is added to it any more.
    """

    number: int
    at: float
    groups: list[Group] = field(default_factory=list)
    whole: bool = False

    @property
    def frames(self) -> int:
        """From its first to its last; with those that are missing between them."""
        return self.groups[-1].end - self.groups[0].first_frame if self.groups else 0

    @property
    def data(self) -> bytes:
        return b"".join(group.fragment for group in self.groups)


def part_name(frame: int) -> str:
    """Of the part that begins with `frame`."""
    return f"part-{frame}.m4s"


def segment_name(number: int) -> str:
    return f"segment-{number}.m4s"


def media_playlist(shape: Shape, segments: Sequence[Segment], *, parts: bool, over: bool) -> str:
    """The playlist of the newest `segments`. The last one may not be whole yet.

    Args:
        parts: list parts too, for servers that answer when a part is there. Otherwise only whole segments are listed.
        over: the session has ended.
    """
    shown = [segment for segment in segments if segment.whole or parts]
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{9 if parts else 7}", f"#EXT-X-TARGETDURATION:{shape.target_s}"]
    if parts:
        back_s, part_back_s = _HOLD_BACK_SEGMENTS * shape.target_s, _up(_HOLD_BACK_PARTS * shape.part_target, 5)
        lines.append(f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={part_back_s:.5f},HOLD-BACK={back_s:.1f}")
        lines.append(f"#EXT-X-PART-INF:PART-TARGET={shape.part_target:.5f}")
    lines += [f"#EXT-X-MEDIA-SEQUENCE:{shown[0].number if shown else 0}", "#EXT-X-INDEPENDENT-SEGMENTS", f'#EXT-X-MAP:URI="{INIT}"']
    first_with_parts = _first_with_parts(shape, shown) if parts and not over else len(shown)
    for index, segment in enumerate(shown):
        lines += _segment_lines(shape, segment, parts=index >= first_with_parts)
    if over:
        lines.append("#EXT-X-ENDLIST")
    elif parts and shown and shown[-1].groups:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{part_name(shown[-1].groups[-1].end)}"')
    return "\n".join(lines) + "\n"


def multivariant_playlist(header: Header, peak_bits_s: int, mean_bits_s: int) -> str:
    """The playlist that names the media playlist, with what players ask before they fetch anything."""
    rates = f"BANDWIDTH={max(1, peak_bits_s)},AVERAGE-BANDWIDTH={max(1, mean_bits_s)}"
    shown = f'CODECS="{header.codec}",RESOLUTION={header.width}x{header.height},FRAME-RATE={header.fps:.3f}'
    return f"#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-STREAM-INF:{rates},{shown}\n{MEDIA}\n"


def _segment_lines(shape: Shape, segment: Segment, *, parts: bool) -> list[str]:
    lines = []
    if segment.groups:
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{_time(segment.at)}")
    if parts:
        for group in segment.groups:
            duration = len(group.units) / shape.fps
            lines.append(f'#EXT-X-PART:DURATION={duration:.5f},URI="{part_name(group.first_frame)}",INDEPENDENT=YES')
    if not segment.whole:
        return lines
    gap = [] if segment.groups else ["#EXT-X-GAP"]
    seconds = (segment.frames or shape.segment_frames) / shape.fps
    return [*lines, *gap, f"#EXTINF:{seconds:.5f},", segment_name(segment.number)]


def _first_with_parts(shape: Shape, shown: Sequence[Segment]) -> int:
    """The first of the segments within so many target durations from the end."""
    frames, index = 0, len(shown)
    while index > 0 and frames < _PARTS_FOR * shape.target_s * shape.fps:
        index -= 1
        frames += shown[index].frames
    return index


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _up(value: float, digits: int) -> float:
    """The next decimal number that is not below."""
    return math.ceil(value * 10.0**digits - 1e-6) / 10.0**digits

"""The newest segments of a session, as players fetch them. Pure; times are arguments."""

from __future__ import annotations

from collections import deque

from model_core.access_units import Group, Header
from service.broadcast.playlist import INIT, MEDIA, MULTIVARIANT, Segment, Shape, media_playlist, multivariant_playlist

SEGMENT_S = 2.0
# Whole segments in a playlist; and those that are still there for players who have an older one.
LISTED, _KEPT = 6, 3
_MOST_BYTES = 64 * 1024 * 1024


class Window:
    """See the module.

    Args:
        header: of the session.
        parts: whether parts are listed; see `playlist`.
        segment_s: about how long a segment is.
    """

    def __init__(self, header: Header, *, parts: bool = True, segment_s: float = SEGMENT_S) -> None:
        self.header = header
        self.shape = Shape.of(header, segment_s)
        self._parts = parts
        self._segments: deque[Segment] = deque()
        self._groups: dict[int, Group] = {}
        self._peak = self._total_bytes = self._total_frames = 0
        self.over = False

    @property
    def numbers(self) -> list[int]:
        """Of the segments that are there, the oldest first."""
        return [segment.number for segment in self._segments]

    @property
    def newest(self) -> tuple[int, int]:
        """The number of the segment that grows, and how many parts it has; (-1, 0) before the first."""
        if not self._segments:
            return -1, 0
        last = self._segments[-1]
        return (last.number + 1, 0) if last.whole else (last.number, len(last.groups))

    def add(self, group: Group, at: float) -> None:
        """The next group, which went out at `at` seconds since 1970. One that is not behind the others is left out."""
        number = self.shape.segment(group.first_frame)
        last = self._segments[-1] if self._segments else None
        if last is not None and number - last.number > LISTED:  # so much is missing that nothing before it is in the playlist
            self._segments.clear()
            self._groups.clear()
            last = None
        if last is not None and (number < last.number or (last.groups and group.first_frame < last.groups[-1].end)):
            return
        if last is None or last.number != number or last.whole:
            if last is not None:
                last.whole = True
                self._segments.extend(Segment(missing, at, whole=True) for missing in range(last.number + 1, number))
            self._segments.append(Segment(number, at))
        segment = self._segments[-1]
        segment.groups.append(group)
        segment.whole = self.shape.segment(group.end) != number
        self._groups[group.first_frame] = group
        self._peak = max(self._peak, 8 * len(group.fragment) * self.header.fps // len(group.units))
        self._total_bytes, self._total_frames = self._total_bytes + len(group.fragment), self._total_frames + len(group.units)
        self._trim()

    def end(self) -> None:
        """The session has ended."""
        if self._segments:
            self._segments[-1].whole = True
        self.over = True

    def has(self, number: int, part: int | None) -> bool:
        """Whether a playlist lists so much: the whole segment, or its part with this index."""
        at, parts = self.newest
        return self.over or at > number or (at == number and part is not None and parts > part)

    @property
    def next_frame(self) -> int:
        """The frame that the next part begins with."""
        return next(reversed(self._groups.values())).end if self._groups else 0

    def has_frame(self, frame: int) -> bool:
        """Whether the part that begins with `frame` is there, or will never be."""
        return self.over or self.next_frame > frame

    def playlist(self) -> str:
        whole = [segment for segment in self._segments if segment.whole][-LISTED:]
        return media_playlist(self.shape, [*whole, *self._growing], parts=self._parts, over=self.over)

    def multivariant(self) -> str:
        mean = 8 * self._total_bytes * self.header.fps // max(1, self._total_frames)
        return multivariant_playlist(self.header, self._peak, mean)

    def part(self, frame: int) -> bytes | None:
        """None where it is not there, or not any more."""
        group = self._groups.get(frame)
        return None if group is None else group.fragment

    def segment(self, number: int) -> bytes | None:
        """None where it is not whole, or not there any more."""
        return next((each.data for each in self._segments if each.number == number and each.whole and each.groups), None)

    def files(self) -> dict[str, bytes]:
        """The playlists and the header, by their names."""
        return {MULTIVARIANT: self.multivariant().encode(), MEDIA: self.playlist().encode(), INIT: self.header.segment}

    @property
    def _growing(self) -> list[Segment]:
        return [segment for segment in self._segments if not segment.whole]

    def _trim(self) -> None:
        held = sum(len(group.fragment) for group in self._groups.values())
        while len(self._segments) > 1 and (len(self._segments) > LISTED + _KEPT + 1 or held > _MOST_BYTES):
            for group in self._segments.popleft().groups:
                held -= len(group.fragment)
                del self._groups[group.first_frame]

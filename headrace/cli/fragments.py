"""Fragments of MP4 that come in several messages, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.v1 import video_pb2 as wire


class Fragments:
    """Those of one session, in order."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._begins_with = 0  # its first frame

    def whole(self, event: wire.Frames) -> bytes | None:
        """The fragment that `event` completes; None where more of it follows. A part whose rest never came is forgotten."""
        if event.first_frame != self._begins_with:
            self._parts, self._begins_with = [], event.first_frame
        self._parts += event.data
        if event.frame_count == 0:
            return None
        fragment, self._parts = b"".join(self._parts), []
        return fragment

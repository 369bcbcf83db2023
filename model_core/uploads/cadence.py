"""Pictures that come at any rate, as frames at another one: what is on screen at 0, 1/fps, 2/fps … seconds. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

# A publisher that sends nothing for longer leaves a gap, which is not filled.
_LONGEST_S = 1.0


class Cadence:
    """One publisher's pictures.

    Args:
        fps: frames a second that go out.
    """

    def __init__(self, fps: int) -> None:
        self._fps = fps
        self._origin: float | None = None
        self._made = 0
        self._shown: bytes | None = None

    def frames(self, seconds: float, picture: bytes) -> Iterator[bytes]:
        """The frames that are known to be on screen before `picture` is, which comes at `seconds`."""
        if self._origin is None:
            self._origin = seconds
        behind = seconds - self._origin - self._made / self._fps
        if self._shown is None or not -_LONGEST_S < behind < _LONGEST_S:
            self._origin, self._made = seconds, 0
        else:
            while self._made / self._fps < seconds - self._origin:
                yield self._shown
                self._made += 1
        self._shown = picture


class Newest:
    """Frames that wait to be taken: when there are too many, the oldest are dropped, and counted.

    Args:
        most: frames that may wait.
    """

    def __init__(self, most: int) -> None:
        self._frames: deque[bytes] = deque()
        self._most = most
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        if len(self._frames) > self._most:
            self._frames.popleft()
            self.dropped += 1

    def take(self, most: int) -> tuple[bytes, ...]:
        """The oldest ones."""
        return tuple(self._frames.popleft() for _ in range(min(most, len(self._frames))))

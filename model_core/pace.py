"""What a session may know of its viewer's time."""

from __future__ import annotations

from typing import Protocol


class Pace(Protocol):
    """The viewer's side of time."""

    async def wait(self, frame: int) -> None:
        """Return when the chunk that begins with `frame` may be pulled. Controls do not wait for it."""

    def due_s(self, frame: int) -> float | None:
        """Seconds until `frame` is due on screen; None for no deadline."""

    def may_begin(self) -> bool:
        """Whether a leg may be begun for a control now, while another one plays."""

    async def begin(self) -> None:
        """Return when a leg may be begun for a control. It counts as begun."""

    def may_replace(self) -> bool:
        """Whether frames that have been handed out may be made again now."""

    def replaced(self, frame: int, end: int) -> None:
        """Frames from `frame` up to `end`, which had been handed out, are made again."""

"""A session that waits or runs, as whoever steers, drains or fails it sees it."""

from __future__ import annotations

import asyncio
from collections import deque

from headrace.v1 import video_pb2 as pb
from model_core.errors import StageUnavailable
from model_core.pipeline import Session
from service.admission.desk import Ticket

_OUTCOMES = {
    pb.END_REASON_COMPLETED: "completed",
    pb.END_REASON_STOPPED: "stopped",
    pb.END_REASON_SERVER_DRAINING: "draining",
    pb.END_REASON_PAUSED: "paused",
}

DRAINING = "the server is shutting down; another one will answer"


class RunningSession:
    """See the module's docstring. `whole`: once it runs, it is of no use cut short."""

    def __init__(self, session: Session, ticket: Ticket, max_unanswered: int, *, whole: bool) -> None:
        self._whole = whole
        self.draining = False
        self.session = session
        self.reason: pb.EndReason = pb.END_REASON_COMPLETED
        self.failure: Exception | None = None
        self.stop_asked = False
        self.unanswered = asyncio.Semaphore(max_unanswered)
        self.prompts_at: deque[float] = deque()
        self._ticket = ticket

    @property
    def outcome(self) -> str:
        """The reason, as metrics and logs call it."""
        return _OUTCOMES[self.reason]

    def end(self, reason: pb.EndReason) -> None:
        """End in order before the next chunk, in line or running. The first reason counts."""
        if self.reason == pb.END_REASON_COMPLETED:
            self.reason = reason
        self._ticket.withdraw()
        self.session.stop()

    def fail(self, error: Exception) -> None:
        """End with `error`; the first one counts."""
        self.failure = self.failure or error
        self.end(pb.END_REASON_STOPPED)

    def drain(self) -> None:
        """The server is shutting down. One that runs may go on for a while; one that waits or is paused is better off elsewhere."""
        self.draining = True
        if self.session.paused or not self._ticket.admitted:
            self.end(pb.END_REASON_SERVER_DRAINING)

    def hand_over(self) -> None:
        """The time that it may go on is over."""
        if self._whole:
            self.fail(StageUnavailable(DRAINING))
        else:
            self.end(pb.END_REASON_SERVER_DRAINING)

    def check(self) -> None:
        """Raise what `fail` was given."""
        if self.failure is not None:
            raise self.failure

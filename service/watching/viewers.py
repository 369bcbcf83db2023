"""Serves those who watch, whatever door they come through: within limits, counted, and written into the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from observability.context import SESSION_ID
from observability.metrics import Metrics
from service.call import Call
from service.events import Ended, Frames, Skipped, Started
from service.failures import outcome_of
from service.ledger.interface import Audit, AuditEntry, Detail, NoAudit, Outcome
from service.watching.hub import Hub
from service.watching.show import Item

SendItem = Callable[[Item], Awaitable[None]]
"""Returns when the caller has taken it. Nobody waits for that but the caller."""
Meet = Callable[[Started], SendItem]
"""Is told what it will be shown before anything of it, and says how to send it. It may refuse."""


@dataclass(slots=True)
class _Noted:
    session: str = ""
    frames: int = 0
    skipped: int = 0


class Viewers:
    """See the module.

    Args:
        hub: has what they watch.
        metrics: where to count.
        audit: is told of each at its end.
    """

    def __init__(self, hub: Hub, metrics: Metrics, audit: Audit | None = None) -> None:
        self._hub = hub
        self._metrics = metrics
        self._audit = audit or NoAudit()

    async def run(self, token: str, meet: Meet, call: Call) -> None:
        """Show the session of `token`, until it ends or the caller leaves.

        Raises:
            SessionNotFound: no session that runs has the token, or it was lost.
            NotServed, CapacityExceeded, StageUnavailable: as `Hub.watching`.
            ReaderStalled, InvalidRequest: from `meet`, or from what it returns.
        """
        with self._noted(call) as noted:
            async with self._hub.watching(token) as watcher:
                started = watcher.started
                noted.session = started.session_id
                SESSION_ID.set(started.session_id)
                send = meet(started)
                seconds = self._metrics.watched_seconds_total.labels(started.model, call.door)
                async with aclosing(watcher.items()) as items:
                    async for item in items:
                        await send(item)
                        match item.event:
                            case Frames(chunk=chunk):
                                noted.frames += chunk.num_frames
                                seconds.inc(chunk.num_frames / started.fps)
                            case Skipped(frames=frames):
                                noted.skipped += frames
                                self._metrics.watch_skipped_frames_total.labels(started.model).inc(frames)
                            case Ended(reason=reason):
                                call.outcome = reason.value

    @contextmanager
    def _noted(self, call: Call) -> Iterator[_Noted]:
        """Nothing in it tells the token."""
        noted, outcome, ended, reason = _Noted(), Outcome.ALLOWED, "cancelled", ""
        try:
            yield noted
            ended = call.outcome
        except Exception as error:
            outcome, ended = Outcome.FAILED, outcome_of(error)
            reason = str(error) if ended != "internal" else ""
            raise
        finally:
            detail: Detail = {"door": call.door, "ended": ended, "frames": noted.frames, "skipped_frames": noted.skipped}
            entry = AuditEntry(
                operation="watch", outcome=outcome, principal=call.principal, resource=noted.session, reason=reason, address=call.address,
                request_id=call.request_id, detail=detail,
            )  # fmt: skip
            self._audit.note(entry)

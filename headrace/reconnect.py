"""Going on after a lost connection: what has arrived, what to ask for, and how often to try.

A broken connection and a server that shuts down are gaps; every other end of a session is passed on. So is a server that says before
the session has started that it cannot serve now, and when to try again. When the gap cannot be closed, the caller sees what it would have
seen at once without trying.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar, cast

import grpc

from headrace.errors import Busy, ClientError, Unavailable
from headrace.v1 import video_pb2 as pb

Event = TypeVar("Event")
Answer = TypeVar("Answer")

_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a lost session is gone on with. The first try is immediate; then delays double, each shortened at random by up to a half.

    Attributes:
        give_up_after_s: length of a gap after which the session counts as lost.
        first_delay_s, max_delay_s: between two tries.
    """

    give_up_after_s: float = 30.0
    first_delay_s: float = 0.05
    max_delay_s: float = 1.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` tries; `chance` is a random number from 0 to 1."""
        if failures == 0:
            return 0.0
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** min(failures - 1, 60)) * (1 - chance / 2)


class Arrived:
    """What of a session the caller has had."""

    def __init__(self) -> None:
        self._token = ""
        self._next_frame = 0
        self._prompts: deque[pb.PromptAck] = deque(maxlen=_REMEMBERED)
        self._qualities: deque[pb.QualityChange] = deque(maxlen=_REMEMBERED)

    @property
    def resumable(self) -> bool:
        return bool(self._token)

    def news(self, event: object) -> bool:
        """Note `event`. False for a Started that only says again what is known."""
        match event:
            case pb.Started():
                first, self._token = not self._token, event.resume_token
                return first
            case pb.Frames():
                self._next_frame = event.first_frame + event.frame_count
            case pb.PromptAck():
                _latest(self._prompts, event)
                self._next_frame = min(self._next_frame, event.first_frame)  # later ones are superseded
            case pb.QualityChange():
                _latest(self._qualities, event)
        return True

    def resume(self) -> pb.SessionResume:
        return pb.SessionResume(token=self._token, next_frame=self._next_frame, acknowledged=self._prompts, quality_changes=self._qualities)


Change = TypeVar("Change", pb.PromptAck, pb.QualityChange)


def _latest(changes: deque[Change], change: Change) -> None:
    """The last is in force from its frame on, whatever was told for later ones."""
    while changes and changes[-1].first_frame >= change.first_frame:
        changes.pop()
    changes.append(change)


class _Gap:
    """From the loss of a connection to the next sign of life; `begun`, whether there is a session that waits for it."""

    def __init__(self, policy: Reconnect, ended: pb.Ended | None, error: ClientError | None, *, begun: bool) -> None:
        self.ended, self.error = ended, error
        self._policy = policy
        # A viewer who waits for frames is served best by the first server that can, and another one may.
        self._heeded = (Busy,) if begun else (Busy, Unavailable)
        self._failures = 0
        self._ends_at = asyncio.get_running_loop().time() + policy.give_up_after_s

    async def wait(self, error: ClientError | None) -> bool:
        """Until the next try after `error` is due; False when it is too late for one."""
        retry_after_s = (error.retry_after_s or 0.0) if isinstance(error, self._heeded) else 0.0
        seconds = max(self._policy.delay(self._failures, random.random()), min(retry_after_s, self._policy.max_delay_s))
        self._failures += 1
        if asyncio.get_running_loop().time() + seconds > self._ends_at:
            return False
        await asyncio.sleep(seconds)
        return True


async def resuming(
    attempt: Callable[[pb.SessionResume | None], AsyncGenerator[Event, None]], policy: Reconnect | None, arrived: Arrived
) -> AsyncGenerator[Event, None]:
    """Events of `attempt(None)` and, after a break, of `attempt(resume)`, as of one session. Without a policy there is one attempt.

    A resume without a token begins anew, because the session had not started.

    Raises:
        ClientError: the session failed, or its connection broke for good.
    """
    gap: _Gap | None = None
    resume: pb.SessionResume | None = None
    while True:
        ended: pb.Ended | None = None
        error: ClientError | None = None
        running = False
        try:
            async with aclosing(attempt(resume)) as events:
                async for event in events:
                    running = running or isinstance(event, pb.Started)
                    if policy is not None and arrived.resumable and _draining(event):
                        ended = cast("pb.Ended", event)
                        break
                    if isinstance(event, pb.Frames):
                        gap = None
                    if arrived.news(event):
                        yield event
                else:
                    return
        except ClientError as caught:
            error = caught
        gap = _gap(policy, arrived, gap, ended, error, running=running)
        if _hopeless(error) or not await gap.wait(error):
            if gap.error is not None:
                raise gap.error from (None if error is gap.error else error)
            yield gap.ended  # type: ignore[misc]  # an Ended is an event of every session
            return
        resume = arrived.resume()


async def asked_again(call: Callable[[], Awaitable[Answer]], policy: Reconnect | None) -> Answer:
    """What `call` answers. It is made again while the server says that it cannot serve now. Without a policy it is made once.

    Raises:
        ClientError: of the last try.
    """
    gap: _Gap | None = None
    while True:
        try:
            return await call()
        except ClientError as error:
            if policy is None or not _may_begin_anew(error, gap):
                raise
            gap = gap or _Gap(policy, None, error, begun=False)
            if not await gap.wait(error):
                raise


def _gap(
    policy: Reconnect | None, arrived: Arrived, gap: _Gap | None, ended: pb.Ended | None, error: ClientError | None, *, running: bool
) -> _Gap:
    """The gap that `error` or `ended` begins, or prolongs.

    Raises:
        ClientError: `error`, where it is none that a new connection could mend.
    """
    if error is not None and not (arrived.resumable or _may_begin_anew(error, gap)):
        raise error
    if error is not None and _hopeless(error) and (gap is None or running):
        raise error
    if policy is None:
        raise error or ValueError("without a policy only an error ends a session early")
    return gap or _Gap(policy, ended, error, begun=arrived.resumable)


def _hopeless(error: ClientError | None) -> bool:
    return error is not None and error.code not in _BROKEN and not isinstance(error, Busy)


def _may_begin_anew(error: ClientError, gap: _Gap | None) -> bool:
    """Whether to ask again for what has not begun: the server itself said that it cannot serve now, and when to try again."""
    if gap is None:
        return isinstance(error, Unavailable) and error.retry_after_s is not None
    return not _hopeless(error)


def cancel_asked_for() -> bool:
    """In the handler of a CancelledError: whether this task was cancelled; a call that the server cancelled looks the same."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _draining(event: object) -> bool:
    return isinstance(event, pb.Ended) and event.reason == pb.END_REASON_SERVER_DRAINING

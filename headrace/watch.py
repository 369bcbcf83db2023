"""The client's side of a Watch: one view of a session over several connections, where that is asked for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import cast

import grpc

from headrace.errors import ClientError
from headrace.reconnect import Reconnect
from headrace.v1 import video_pb2 as pb

WatchEvent = pb.Started | pb.Frames | pb.PromptAck | pb.QualityChange | pb.Paused | pb.Resumed | pb.Skipped | pb.Ended

# A server that is not there, or is about to go; and one that does not have the session yet.
_MAY_PASS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND)
_BREAKS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Seen:
    """What the caller has seen. A new connection begins at the newest chunk, which it may know."""

    def __init__(self) -> None:
        self.begun = False
        self._next_frame = 0
        self._last: dict[type, WatchEvent] = {}
        self._joins = False

    def again(self) -> None:
        """On a new connection."""
        self._joins = True

    def news(self, event: WatchEvent) -> Iterator[WatchEvent]:
        """What of `event` is new, with what was missed before it."""
        match event:
            case pb.Started():
                if not self.begun:
                    self.begun = True
                    self._next_frame = event.next_frame
                    yield event
            case pb.Frames():
                missed = event.first_frame - self._next_frame
                if self._joins and missed < 0:
                    return
                if self._joins and missed:
                    yield pb.Skipped(frames=missed, next_frame=event.first_frame)
                self._joins = False
                self._next_frame = event.first_frame + event.frame_count  # 0 for a part of a fragment, whose next part is like it
                yield event
            case pb.Skipped():
                self._next_frame = event.next_frame
                yield event
            case _:
                kind = pb.Paused if isinstance(event, pb.Resumed) else type(event)
                if self._joins and self._last.get(kind) == event:
                    return
                self._last[kind] = event
                if isinstance(event, pb.PromptAck):
                    self._next_frame = min(self._next_frame, event.first_frame)
                yield event


class _Gap:
    """From the loss of a connection to the next frames."""

    def __init__(self, policy: Reconnect, lost: pb.Ended | ClientError) -> None:
        self.lost = lost
        self._policy = policy
        self._failures = 0
        self._ends_at = asyncio.get_running_loop().time() + policy.give_up_after_s

    async def wait(self) -> bool:
        """Until the next try; False when it is too late for one."""
        seconds = self._policy.delay(self._failures, random.random())
        self._failures += 1
        if asyncio.get_running_loop().time() + seconds > self._ends_at:
            return False
        await asyncio.sleep(seconds)
        return True


async def watching(attempt: Callable[[], AsyncGenerator[WatchEvent, None]], policy: Reconnect | None) -> AsyncGenerator[WatchEvent, None]:
    """Events of one attempt after the other, as of one view. Without a policy there is one attempt.

    Raises:
        ClientError: the call failed, or could not be made again in time.
    """
    seen = Seen()
    gap: _Gap | None = None
    while True:
        lost: pb.Ended | ClientError | None = None
        try:
            async with aclosing(attempt()) as events:
                async for event in events:
                    if policy is not None and _draining(event):
                        lost = cast("pb.Ended", event)
                        break
                    gap = None if isinstance(event, pb.Frames) else gap
                    for new in seen.news(event):
                        yield new
        except ClientError as error:
            if policy is None or not seen.begun or error.code not in (_BREAKS if gap is None else _MAY_PASS):
                raise
            lost = error
        if policy is None or lost is None:
            return
        gap = gap or _Gap(policy, lost)
        if not await gap.wait():
            if isinstance(gap.lost, ClientError):
                raise gap.lost
            yield gap.lost
            return
        seen.again()


def _draining(event: WatchEvent) -> bool:
    return isinstance(event, pb.Ended) and event.reason == pb.END_REASON_SERVER_DRAINING

"""The service's events to messages, cut to what the caller takes, and written one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from doors.grpc import message_size, wire
from doors.grpc.edge import Outgoing
from headrace.v1 import video_pb2 as pb
from service.call import taken_within
from service.events import (
    Ended,
    Event,
    Frames,
    Paused,
    PromptApplied,
    PromptRefused,
    QualityChanged,
    QueuePosition,
    Resumed,
    Started,
    Usage,
)  # fmt: skip

Reply = pb.StreamResponse | pb.LiveResponse


class Replies:
    """The way out of one call.

    Args:
        kind: what the call sends.
        outgoing: writes it.
        max_message_bytes: the largest message that the caller takes.
        stall_s: how long the caller may take nothing.
    """

    def __init__(self, kind: type[Reply], outgoing: Outgoing, max_message_bytes: int, stall_s: float) -> None:
        self._kind = kind
        self._outgoing = outgoing
        self._max_message_bytes = max_message_bytes
        self._stall_s = stall_s

    async def send(self, event: Event) -> None:
        """See `service.events.Send`. Raises ReaderStalled."""
        for message in self._messages(event):
            await taken_within(self._stall_s, self._outgoing.write(message))

    def _messages(self, event: Event) -> Iterator[Reply]:
        if isinstance(event, Frames):
            path = "start." if self._kind is pb.LiveResponse else ""
            for part in message_size.parts(wire.frames(event.chunk, event.before), self._max_message_bytes, path):
                yield self._kind(frames=part)
        else:
            name, message = MESSAGES[type(event)]
            fields: dict[str, Any] = {name: message(event)}
            yield self._kind(**fields)


MESSAGES: dict[type, tuple[str, Callable[[Any], Message]]] = {
    QueuePosition: ("queue_position", lambda event: pb.QueuePosition(position=event.position)),
    Started: ("started", wire.started),
    PromptApplied: ("prompt_ack", wire.prompt_ack),
    PromptRefused: ("prompt_refused", wire.prompt_refused),
    QualityChanged: ("quality_change", wire.quality_change),
    Paused: ("paused", lambda event: pb.Paused(next_frame=event.next_frame)),
    Resumed: ("resumed", lambda event: pb.Resumed(next_frame=event.next_frame)),
    Usage: ("usage", wire.usage),
    Ended: ("ended", wire.ended),
}
"""The field and the message of every event but frames, which may need several messages."""

"""The service's events to messages, cut to what the caller takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from doors.wire import message_size, messages
from headrace.v1 import video_pb2 as pb
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
    Shown,
    Skipped,
    SourceDropped,
    SourceTaken,
    Started,
    Usage,
)

Reply = pb.StreamResponse | pb.LiveResponse | pb.WatchResponse | pb.ReplayResponse


def replies(kind: type[Reply], event: Event | Shown, max_message_bytes: int) -> Iterator[Reply]:
    """`event` as messages of at most `max_message_bytes`.

    Raises:
        InvalidRequest: as `message_size.parts`.
    """
    if isinstance(event, Frames):
        path = "start." if kind is pb.LiveResponse else ""
        for part in message_size.parts(messages.frames(event.chunk, event.before), max_message_bytes, path):
            yield kind(frames=part)
    else:
        name, message = MESSAGES[type(event)]
        fields: dict[str, Any] = {name: message(event)}
        yield kind(**fields)


MESSAGES: dict[type, tuple[str, Callable[[Any], Message]]] = {
    QueuePosition: ("queue_position", lambda event: pb.QueuePosition(position=event.position)),
    Started: ("started", messages.started),
    PromptApplied: ("prompt_ack", messages.prompt_ack),
    PromptRefused: ("prompt_refused", messages.prompt_refused),
    QualityChanged: ("quality_change", messages.quality_change),
    Paused: ("paused", lambda event: pb.Paused(next_frame=event.next_frame)),
    Resumed: ("resumed", lambda event: pb.Resumed(next_frame=event.next_frame)),
    Skipped: ("skipped", lambda event: pb.Skipped(frames=event.frames, next_frame=event.next_frame)),
    SourceTaken: ("source_taken", messages.source_taken),
    SourceDropped: ("source_dropped", messages.source_dropped),
    Usage: ("usage", messages.usage),
    Ended: ("ended", messages.ended),
}
"""The field and the message of every event but frames, which may need several messages."""

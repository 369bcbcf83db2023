"""Writes the service's events to a call, message by message."""

from __future__ import annotations

from doors.grpc.edge import Outgoing
from doors.wire import message_size
from doors.wire.replies import Reply, replies
from headrace.v1 import video_pb2 as pb
from service.call import taken_within
from service.events import Event, Shown
from service.watching.show import Item

_ANY_SIZE = 2**31 - 1


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
        for message in replies(self._kind, event, self._max_message_bytes):
            await taken_within(self._stall_s, self._outgoing.write(message))


class Viewing:
    """The way out of a call that watches. A message is made once for all calls that take it whole, and all send the same bytes.

    What is too large is cut once for all calls that take messages of the usual size, and for each that takes another.

    Args:
        outgoing: writes it.
        max_message_bytes: the largest message that the caller takes.
        stall_s: how long the caller may take nothing.
    """

    def __init__(self, outgoing: Outgoing, max_message_bytes: int, stall_s: float) -> None:
        self._outgoing = outgoing
        self._max_message_bytes = max_message_bytes
        self._stall_s = stall_s

    async def send(self, item: Item) -> None:
        """Raises ReaderStalled, and InvalidRequest: a frame alone is larger than the caller takes."""
        messages = item.once(pb.WatchResponse, _whole)
        if any(len(message) > self._max_message_bytes for message in messages):
            usual = self._max_message_bytes == message_size.DEFAULT_BYTES
            messages = item.once(_usual, _usual) if usual else _serialized(item.event, self._max_message_bytes)
        for message in messages:
            await taken_within(self._stall_s, self._outgoing.write(message))


def _whole(event: Shown) -> list[bytes]:
    return _serialized(event, _ANY_SIZE)


def _usual(event: Shown) -> list[bytes]:
    return _serialized(event, message_size.DEFAULT_BYTES)


def _serialized(event: Shown, max_message_bytes: int) -> list[bytes]:
    return [message.SerializeToString() for message in replies(pb.WatchResponse, event, max_message_bytes)]

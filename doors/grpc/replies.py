"""Writes the service's events to a call, message by message."""

from __future__ import annotations

from doors.grpc.edge import Outgoing
from doors.wire.replies import Reply, replies
from service.call import taken_within
from service.events import Event


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

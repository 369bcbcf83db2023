"""Messages of one WebSocket, put together within bounds. The `websockets` package reads the frames; what it is given may be hostile."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from doors.http.bodies import Held
from doors.http.options import HttpOptions
from model_core.errors import FieldViolation, HeadraceError, InvalidRequest
from service.failures import BodyTooLarge

FIELD = "message"

# Messages that nobody has taken yet. With so many, or so many bytes, nothing is read until some are taken.
_MOST_WAITING, _MOST_WAITING_BYTES = 64, 64 * 1024
# What a message takes beside its data.
_MESSAGE_BYTES = 128
# A socket that holds no more than this is not counted with the bodies of all requests. Else a session that runs would end with its next
# control, because of what others send.
UNCOUNTED_BYTES = 80 * 1024

log = logging.getLogger(__name__)


class Discreet(logging.LoggerAdapter[logging.Logger]):
    """For the package's own log lines, which would show what callers send. Its defects are told."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        return level >= logging.ERROR and super().isEnabledFor(level)


@dataclass(frozen=True, slots=True)
class Message:
    """What a caller sent at once. `text`: it says that it is UTF-8, which nobody has checked."""

    data: bytes
    text: bool


class Incoming:
    """What comes. Nothing is read any more once it has failed, so that no more is held either.

    Attributes:
        failure: why nothing more is read; raised to whoever receives.
        broken: the caller does not keep to the protocol of WebSockets.
        said_goodbye: the caller has closed the socket.
        frames: how many have come.

    Args:
        most: bytes of a message.
        held: counts messages with the bodies of all requests.
    """

    def __init__(self, most: int, held: Held) -> None:
        self.failure: HeadraceError | None = None
        self.broken = self.said_goodbye = False
        self.frames = 0
        self._most = most
        self._held = held
        self._counted = self._taken_bytes = 0  # of all that is held here; of the message that is worked on
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._fragments: bytearray | None = None  # of the message that comes
        self._is_text = self._ignoring = False
        self._since: float | None = None  # when the message that comes has begun
        self._opening = False  # the first message is awaited
        self._begun = asyncio.Event()
        self._arrived = asyncio.Event()
        self._reader: ServerProtocol | None = ServerProtocol(state=OPEN, max_size=most, logger=Discreet(log))

    @property
    def full(self) -> bool:
        """Whether to read on only when messages were taken."""
        if self.failure is not None:
            return False
        return len(self._inbox) >= _MOST_WAITING or self._inbox_bytes + _MESSAGE_BYTES * len(self._inbox) >= _MOST_WAITING_BYTES

    @property
    def waiting(self) -> int:
        """Messages that nobody has taken."""
        return len(self._inbox)

    @property
    def partial_bytes(self) -> int:
        """Of the message that has not come in whole."""
        return len(self._fragments or b"") + (0 if self._reader is None else len(self._reader.reader.buffer))

    def feed(self, data: bytes, now: float) -> list[bytes]:
        """Take what came. Returns frames that the protocol answers with."""
        reader = self._reader
        if reader is None:
            return []
        reader.receive_data(data)
        for event in reader.events_received():
            if isinstance(event, Frame):
                self.frames += 1
                self._frame(event)
        replies = [reply for reply in reader.data_to_send() if reply]
        if isinstance(error := reader.parser_exc, PayloadTooBig):
            self.fail(BodyTooLarge((error.size or 0) + (error.current_size or 0), self._most, FIELD))
            return []  # the application has the last word
        self.broken, self.said_goodbye = error is not None, reader.close_rcvd is not None
        self._count(now)
        return replies

    def fail(self, error: HeadraceError) -> None:
        """Read nothing more."""
        self.failure = self.failure or error
        self._reader = self._fragments = self._since = None
        self._begun.set()
        self._arrived.set()

    def check(self, now: float, heard_at: float, options: HttpOptions) -> None:
        """Fail if a message takes too long to arrive."""
        if self._since is None:
            return
        if now - self._since > options.body_timeout_s:
            self.fail(_late(f"must arrive within {options.body_timeout_s:g} s; got {self.partial_bytes} bytes so far"))
        elif now - heard_at > options.idle_timeout_s:
            self.fail(_late(f"must not pause for more than {options.idle_timeout_s:g} s; got {self.partial_bytes} bytes so far"))

    def put_off(self, seconds: float) -> None:
        """Nothing is read for so long, and that is not the caller's doing."""
        if self._since is not None:
            self._since += seconds

    async def begun(self) -> None:
        """Returns when the first byte of the first message has come, or none will.

        Nobody sees from its first byte what a frame is. If it is none of a message, the time for the message runs nevertheless.
        """
        self._opening = not self._begun.is_set()
        await self._begun.wait()

    async def receive(self, max_bytes: int | None) -> Message:
        """The next message; it is held until the one after it is asked for. Raises `failure`, and BodyTooLarge."""
        if max_bytes is not None:
            self._most = max_bytes
            if self._reader is not None:
                self._reader.max_message_size = max_bytes
        self._taken_bytes = 0
        self._settle()
        while not self._inbox:
            if self.failure is not None:
                raise self.failure
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        self._taken_bytes = len(message.data)
        self._inbox_bytes -= self._taken_bytes
        if len(message.data) > self._most:
            raise BodyTooLarge(len(message.data), self._most, FIELD)
        return message

    def ignore(self) -> None:
        """Nobody will receive any more; what comes is read for the caller's goodbye alone."""
        self._ignoring = True
        self._inbox.clear()
        self._inbox_bytes = self._taken_bytes = 0
        self._settle()

    def release(self) -> None:
        """Nothing will come any more."""
        self._reader = self._fragments = self._since = None
        self.ignore()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._came(bytes(frame.data))
            else:
                self._fragments = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._fragments is not None:
            self._fragments += frame.data
            if frame.fin:
                self._came(bytes(self._fragments))

    def _came(self, data: bytes) -> None:
        self._fragments, self._opening = None, False
        if self._ignoring:
            return
        self._inbox.append(Message(data, self._is_text))
        self._inbox_bytes += len(data)
        self._begun.set()
        self._arrived.set()

    def _count(self, now: float) -> None:
        """Note whether a message is on its way, and count what is held."""
        if self.partial_bytes > 0 or self._fragments is not None:
            self._since = now if self._since is None else self._since
            self._begun.set()
        elif not self._opening:
            self._since = None
        try:
            self._settle()
        except HeadraceError as error:
            self.fail(error)
            self._inbox.clear()
            self._inbox_bytes = 0
            self._settle()

    def _settle(self) -> None:
        """Raises CapacityExceeded: there is no room for all of it."""
        size = self.partial_bytes + self._inbox_bytes + self._taken_bytes
        more = (size if size > UNCOUNTED_BYTES else 0) - self._counted
        if more > 0:
            self._held.take(more)
        else:
            self._held.give_back(-more)
        self._counted += more


def _late(told: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(FIELD, told),))

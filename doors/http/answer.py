"""What goes back to one caller: ASGI's `send`, with headers that every answer has, and an end to every wait for the caller to take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import Message, Send

from service.call import taken_within

RawHeaders = list[tuple[bytes, bytes]]


class Answer:
    """Counts and bounds what is sent.

    Args:
        send: ASGI's.
        stall_s: how long the caller may take nothing.
        headers: that every answer has, whoever makes it.
        begins: called when an answer begins, which is the last moment to add headers.
        date: the header's value, now.
    """

    def __init__(
        self,
        send: Send,
        stall_s: float,
        headers: Sequence[tuple[bytes, bytes]],
        begins: Callable[[], None],
        date: Callable[[], bytes],
    ) -> None:
        self._send = send
        self._begins = begins
        self._date = date
        self._stall_s = stall_s
        self._headers = list(headers)
        self.status = 0
        self.size = 0

    @property
    def begun(self) -> bool:
        return self.status > 0

    def add(self, name: bytes, value: bytes) -> None:
        """A header for the answer, if it has not begun and nobody gave or gives another of that name."""
        if all(name != known for known, _ in self._headers):
            self._headers.append((name, value))

    async def send(self, message: Message) -> None:
        """Raises ReaderStalled."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._begins()
            given: RawHeaders = list(message.get("headers", ()))
            names = {name for name, _ in given}
            ours = [(name, value) for name, value in self._headers if name not in names]
            date = () if b"date" in names else ((b"date", self._date()),)
            message = {**message, "headers": [*given, *ours, *date]}
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await taken_within(self._stall_s, self._send(message))

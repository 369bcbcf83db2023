"""What goes back to one caller: ASGI's `send`, with headers that every answer has, and an end to every wait for the caller to take it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Scope, Send

from service.call import taken_within

RawHeaders = list[tuple[bytes, bytes]]
# Where a connection says, in ASGI's scope, how a small answer is written at once.
WHOLE = "headrace.whole"
WriteWhole = Callable[[int, RawHeaders, bytes | memoryview], bool]
_PLAIN = (Response, JSONResponse)


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
            message = {**message, "headers": self._complete(message.get("headers", ()))}
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await taken_within(self._stall_s, self._send(message))

    def whole(self, response: Response, scope: Scope) -> bool:
        """Write an answer that is in memory, head and body in one piece. Returns False where that cannot be: nothing is written then."""
        write: WriteWhole | None = scope.get(WHOLE)
        if write is None or self.begun or type(response) not in _PLAIN or response.background is not None:
            return False
        self._begins()
        if not write(response.status_code, self._complete(response.raw_headers), response.body):
            return False
        self.status, self.size = response.status_code, len(response.body)
        return True

    def _complete(self, given: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
        """The headers of an answer that has those in `given`, and every answer's."""
        found = list(given)
        names = {name for name, _ in found}
        found += [(name, value) for name, value in self._headers if name not in names]
        if b"date" not in names:
            found.append((b"date", self._date()))
        return found

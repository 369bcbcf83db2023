"""A running session as the body of an answer: each event is encoded and written as it comes, and no sooner than the caller takes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from doors.http.pushed import PushedResponse, Write
from model_core.tasks import run_in_thread
from service.call import Call, ReaderStalled
from service.events import Event, Frames
from service.failures import outcome_of
from service.orders import Order
from service.sessions.runner import SessionRunner

# Frames of fewer bytes are encoded sooner than a thread would begin.
_MANY_BYTES = 64 * 1024

Encode = Callable[[Event], bytes]
"""What is written of an event; empty for nothing."""

log = logging.getLogger(__name__)


def streamed(
    runner: SessionRunner,
    order: Order,
    call: Call,
    encode: Encode,
    media_type: str,
    *,
    headers: Mapping[str, str] | None = None,
    failed: Callable[[Exception], bytes] | None = None,
) -> Response:
    """An answer whose body is the session of `order`. It begins with the first event that has something to write.

    What ends the session before that is raised, so the edge refuses the call in the room's words.

    Args:
        encode: of each event. Large frames are encoded in a thread.
        failed: encodes an error that comes later, as the last of the body; without it, the answer breaks off.
    """

    async def produce(write: Write) -> None:
        begun = False

        async def send(event: Event) -> None:
            nonlocal begun
            many = isinstance(event, Frames) and sum(map(len, event.chunk.data)) > _MANY_BYTES
            data = await run_in_thread(encode, event) if many else encode(event)
            if data:
                begun = True
                await write(data)

        try:
            await runner.run(order, send, call)
        except (ClientDisconnect, ReaderStalled):
            raise  # nobody reads what would be said of it
        except Exception as error:
            if not begun or failed is None:
                raise
            call.outcome = outcome_of(error)
            if call.outcome == "internal":
                log.exception("a stream of %s failed", call.door)
            await write(failed(error))

    return PushedResponse(produce, media_type, headers)

"""What the service needs to know of the call that a session serves, whatever the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass

from model_core.errors import HeadraceError
from model_core.tasks import begun
from observability.session_trace import SessionTrace
from service.identity.principal import NOBODY, Principal


class ReaderStalled(HeadraceError):
    """The caller took nothing, or sent nothing of what its session waits for, for so long that its slot goes to another."""


class FileTooLarge(HeadraceError):
    """The encoder cannot make the file as small as the caller needs it."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"the file has {size} bytes; the caller takes {most}")
        self.size = size


@dataclass(slots=True)
class Call:
    """One call. Its door fills it in and reads `outcome` at the end.

    Attributes:
        tenant: the caller's; empty for none.
        trace: None for a call that is not traced.
        outcome: the label in the metrics of a call that ends without an error.
        principal: who calls, once the door knows.
        door: the door's name, or its room's.
        address: of the peer, without its port; empty where there is none.
        request_id: by which the log of the server names the call.
    """

    tenant: str = ""
    trace: SessionTrace | None = None
    outcome: str = "completed"
    principal: Principal = NOBODY
    door: str = "grpc"
    address: str = ""
    request_id: str = ""

    def again(self) -> Call:
        """For one more session of the same caller, which is traced and ends by itself."""
        return Call(tenant=self.tenant, principal=self.principal, door=self.door, address=self.address, request_id=self.request_id)


async def taken_within(seconds: float, write: Awaitable[object]) -> None:
    """Every door writes each message with this. Raises ReaderStalled when the caller has not taken the message after `seconds`.

    Most messages are taken at once. They need no timer, which costs as much as a small message does.
    """
    rest = begun(write) if isinstance(write, Coroutine) else write
    if rest is None:
        return
    try:
        async with asyncio.timeout(seconds):
            await rest
    except TimeoutError:
        raise ReaderStalled(f"nothing was read for {seconds:g} s") from None

"""What the service needs to know of the call that a session serves, whatever the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from model_core.errors import HeadraceError
from observability.session_trace import SessionTrace


class ReaderStalled(HeadraceError):
    """The caller took nothing for so long that its slot goes to another."""


@dataclass(slots=True)
class Call:
    """One call. Its door fills it in and reads `outcome` at the end.

    Attributes:
        tenant: the name that the caller gave; empty for none.
        trace: None for a call that is not traced.
        outcome: the label in the metrics of a call that ends without an error.
    """

    tenant: str = ""
    trace: SessionTrace | None = None
    outcome: str = "completed"


@asynccontextmanager
async def taken_within(seconds: float) -> AsyncGenerator[None, None]:
    """Every door writes each message inside this. Raises ReaderStalled when the caller has not taken the message after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ReaderStalled(f"nothing was read for {seconds:g} s") from None

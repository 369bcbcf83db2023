"""Sessions that other front doors show, as this one sees them. Knows no cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model_core.messages import Message
from service.events import Shown
from service.watching.show import Place

# How long a front door waits for something new before it answers that there is nothing.
WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Batch(Message):
    """What came after the place that was asked for.

    Attributes:
        place: behind these events.
        tenant: whose session it is.
    """

    place: Place
    tenant: str
    events: tuple[Shown, ...] = ()


class Source(Protocol):
    """One session, at the front door that runs it."""

    async def after(self, place: Place | None) -> Batch | None:
        """What is new, after `WAIT_S` at the latest; None where the session is not there any more. Raises StageUnavailable."""
        ...


class Elsewhere(Protocol):
    """All other front doors."""

    async def find(self, token: str) -> Source | None:
        """The one that runs the session; None where none does. Raises StageUnavailable: some did not say whether they do."""
        ...

    async def leaving(self, tokens: Sequence[str]) -> None:
        """Tell them that these sessions play on here, where nobody new finds them, and then go on at one of them. Raises nothing."""
        ...


class Nowhere:
    """There is no other front door."""

    async def find(self, token: str) -> Source | None:
        return None

    async def leaving(self, tokens: Sequence[str]) -> None:
        return None

"""How much of its limit of requests each tenant has left, as this front door heard last. Callers are told with their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.clock import Clock
from service.identity.remembered import Remembered

REQUESTS = "requests_per_minute"  # the limit's name

_KNOWN_FOR_S = 60.0  # the limit is of requests a minute
_MOST_TENANTS = 10_000


@dataclass(frozen=True, slots=True)
class RequestsLeft:
    """Of a tenant's `requests_per_minute`.

    Attributes:
        allowed: the limit.
        used: within the last minute.
        more_at: Unix time at which the oldest of them counts no more.
    """

    allowed: int
    used: int
    more_at: float


class Standings:
    """One for each front door; its event loop owns it. What other front doors count is heard of with the tenant's next request here.

    Args:
        clock: time that passes.
        wall: Unix time.
    """

    def __init__(self, clock: Clock, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._known: Remembered[str, RequestsLeft] = Remembered(_KNOWN_FOR_S, _MOST_TENANTS, clock)

    def note(self, tenant: str, left: RequestsLeft) -> None:
        """A session or job of `tenant` was just counted."""
        self._known.put(tenant, left, ttl_s=left.more_at - self._wall())

    def of(self, tenant: str) -> tuple[RequestsLeft, float] | None:
        """What was heard last, and in how many seconds there is more; None for a tenant without such a limit, or not heard of lately."""
        left = self._known.get(tenant)
        return None if left is None else (left, max(0.0, left.more_at - self._wall()))

"""Webhooks that a tenant registers once: every job of the tenant that ends is reported to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.failures import Conflict, NotFound
from service.identity.principal import Principal

MOST = 16  # of a tenant; each end of a job writes a notice for each
MAX_URL_CHARS = 2048


class EndpointNotFound(NotFound):
    """The caller's tenant has no such endpoint. Another tenant's is answered the same."""


class EndpointConflict(Conflict):
    """The tenant has registered the address before."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of them.

    Attributes:
        id: 12 characters of [a-z0-9].
        secret: signs the notices, as Standard Webhooks has it. It is there when the endpoint is made, and never again.
        created_at: Unix time.
    """

    id: str
    url: str
    created_at: float
    secret: str = field(default="", repr=False)


class EndpointDesk(Protocol):
    """What doors ask of endpoints. All methods see the caller's tenant alone.

    They raise StageUnavailable without the database, and Forbidden for credentials that are derived: an endpoint outlives these, and is
    told of all jobs of the tenant.
    """

    async def register(self, principal: Principal, url: str) -> Endpoint:
        """Raises InvalidRequest: this server does not post there. EndpointConflict, QuotaExceeded: the tenant has it, or too many."""
        ...

    async def list(self, principal: Principal) -> Sequence[Endpoint]:
        """The oldest first."""
        ...

    async def remove(self, principal: Principal, endpoint_id: str) -> None:
        """What was not sent to it yet is not sent any more. Raises EndpointNotFound."""
        ...

"""The settings of those who watch sessions of others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from deployments.config.settings import Settings
from service.watching.hub import WatchLimits

# What a session needs, beyond the time to drain, to go on at another front door.
_MOVES_WITHIN_S = 10.0
_Many = Annotated[int, Field(ge=0, le=1_000_000)]


class WatchSettings(Settings):
    """Each number is of one front-door replica.

    Attributes:
        max_watchers: who may watch anything, together. 0: nobody.
        max_session_watchers: who may watch one session.
        max_tenant_watchers: who may watch the sessions of one tenant, together.
        max_relays: calls of other replicas at once, each for one session that runs here and is watched there.
        linger_seconds: how long those who watch wait for a session whose own viewer has lost its connection; longer where a front door
            takes longer to drain.
    """

    max_watchers: _Many = 4000
    max_session_watchers: _Many = 1000
    max_tenant_watchers: _Many = 2000
    max_relays: Annotated[int, Field(ge=1, le=10_000)] = 64
    linger_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0

    def limits(self, drain_s: float) -> WatchLimits:
        """`drain_s`: how long a session may play on at a front door that is told to stop, and that shows it to no other one any more."""
        return WatchLimits(
            session=self.max_session_watchers, tenant=self.max_tenant_watchers, all=self.max_watchers, relays=self.max_relays,
            linger_s=max(self.linger_seconds, drain_s + _MOVES_WITHIN_S),
        )  # fmt: skip

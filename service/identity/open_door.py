"""Who callers are where no credential is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence

from service.identity.keys import CLIENT_PREFIX, TICKET_S, check_token_length
from service.identity.peers import Proxies, claimed, is_local
from service.identity.principal import Caller, Means, Principal


class OpenDoor:
    """Takes every caller, and every credential unseen, so that clients with a dummy key work. See `Authority`.

    For front doors that only this machine reaches, and for those that are told to be insecure.

    Args:
        proxies: beside callers on this machine, those whose tenant header counts.
        wall: Unix time.
        buckets: that everybody may name.
    """

    def __init__(self, proxies: Proxies, wall: Callable[[], float], buckets: Collection[str] = ()) -> None:
        self._proxies, self._wall, self._buckets = proxies, wall, frozenset(buckets)

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        return await self.without_secret(caller)

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        """No secret: every signature is as good as any other."""
        return await self.without_secret(caller), ()

    async def without_secret(self, caller: Caller) -> Principal:
        if not caller.claimed_tenant or not (is_local(caller.address) or caller.address in self._proxies):
            return Principal(buckets=self._buckets)
        tenant = claimed(caller)
        return Principal(tenant=tenant, subject=tenant, means=Means.PROXY, buckets=self._buckets)

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        """What it may do is not looked at here, no more than with any other credential."""
        check_token_length(seconds)
        return CLIENT_PREFIX + secrets.token_urlsafe(24), self._wall() + seconds

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        """Nobody needs one here. A page that always asks for one has one."""
        return CLIENT_PREFIX + secrets.token_urlsafe(24), self._wall() + TICKET_S

"""Says who callers are, by their credentials. Where none are asked for, that is `open_door`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from service.identity.keys import CLIENT_PREFIX, KeyRecord, check_token_length, parsed
from service.identity.known_keys import KnownKeys
from service.identity.peers import Proxies, claimed
from service.identity.principal import Caller, Forbidden, Means, Principal, Unauthenticated
from service.identity.tokens import ClientTokens, IssuerTokens

# It does not say which part is wrong, or whether a key exists.
_REFUSED = "a valid credential is required: an API key, a token, or a client certificate"
_MOST_PRINCIPALS = 1024
_NO_TOKENS = "this server makes no client tokens; identity.master_variable names no secret"


class Doorkeeper:
    """Takes callers whose credential it knows, by those means that are given to it.

    A secret counts before a certificate, and a certificate before what a proxy says. Nothing is asked of the database for a credential
    that cannot be ours.

    Args:
        keys: API keys of the database; None where the front door takes none.
        issuer: tokens of another's making; None where it takes none.
        client_tokens: our own tokens; None where it makes none, for want of a master secret.
        certificates: tenants by the names in client certificates.
        proxies: whose tenant header counts.
        buckets: of S3, by tenant: those that its results may be written to, beside the credential's own.
    """

    def __init__(
        self,
        *,
        keys: KnownKeys | None = None,
        issuer: IssuerTokens | None = None,
        client_tokens: ClientTokens | None = None,
        certificates: Mapping[str, str] | None = None,
        proxies: Proxies | None = None,
        buckets: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._keys, self._issuer, self._client_tokens = keys, issuer, client_tokens
        self._certificates = dict(certificates or {})
        self._proxies = Proxies() if proxies is None else proxies
        self._buckets = {tenant: frozenset(names) for tenant, names in (buckets or {}).items()}
        self._principals: dict[str, tuple[KeyRecord, Principal]] = {}

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        """See `Authority`."""
        principal: Principal | None = None
        key = parsed(presented)
        if key is not None:
            record = None if self._keys is None else await self._keys.matching(key)
            principal = None if record is None else self._of_record(record)
        elif presented.startswith(CLIENT_PREFIX):
            principal = await self._of_client_token(presented, caller)
        elif self._issuer is not None and presented:
            known = await self._issuer.principal(presented)
            principal = None if known is None else self._with_buckets(known)
        if principal is None:
            raise Unauthenticated(_REFUSED)
        return principal

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        """See `Authority`."""
        found = None if self._keys is None else await self._keys.signing(access_key)
        if found is None:
            raise Unauthenticated(_REFUSED)
        record, signing = found
        return self._with_buckets(_of_key(record, Means.SIGNATURE)), signing

    async def without_secret(self, caller: Caller) -> Principal:
        """See `Authority`."""
        for name in caller.certificate_names:
            if (tenant := self._certificates.get(name)) is not None:
                return self._with_buckets(Principal(tenant=tenant, subject=name, means=Means.CERTIFICATE))
        if caller.claimed_tenant and caller.address in self._proxies:
            tenant = claimed(caller)
            return self._with_buckets(Principal(tenant=tenant, subject=tenant, means=Means.PROXY))
        raise Unauthenticated(_REFUSED)

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        """See `Authority`."""
        check_token_length(seconds)
        if self._client_tokens is None:
            raise Forbidden(_NO_TOKENS)
        return self._client_tokens.make(principal, seconds=seconds, models=models, max_seconds=max_seconds, origin=origin)

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        """See `Authority`."""
        if self._client_tokens is None:
            raise Forbidden(_NO_TOKENS)
        return self._client_tokens.ticket(principal)

    def _of_record(self, record: KeyRecord) -> Principal:
        """The caller with a key. The same one as long as the record is the same, since a key may be used for each poll."""
        known = self._principals.get(record.id)
        if known is not None and known[0] is record:
            return known[1]
        principal = self._with_buckets(_of_key(record, Means.KEY))
        while len(self._principals) >= _MOST_PRINCIPALS:
            del self._principals[next(iter(self._principals))]
        self._principals[record.id] = (record, principal)
        return principal

    def _with_buckets(self, principal: Principal) -> Principal:
        """`principal`, with the buckets of its tenant. Tokens for clients, which leave the tenant's hands, are not given any."""
        more = self._buckets.get(principal.tenant)
        return principal if more is None else replace(principal, buckets=principal.buckets | more)

    async def _of_client_token(self, presented: str, caller: Caller) -> Principal | None:
        """A token of a key is good for as long as the key is, and may use what the key may use now."""
        found = None if self._client_tokens is None else self._client_tokens.principal(presented)
        if found is None:
            return None
        principal, maker = found
        if principal.origin and principal.origin != caller.origin:
            return None
        if maker not in {Means.KEY, Means.SIGNATURE}:
            return principal
        record = None if self._keys is None else await self._keys.usable(principal.subject)
        if record is None:
            return None
        return replace(principal, tenant=record.tenant, models=_both(principal.models, record.models))


def _of_key(record: KeyRecord, means: Means) -> Principal:
    return Principal(tenant=record.tenant, subject=record.id, means=means, models=record.models, buckets=record.buckets)


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """Models that both allow; None allows all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other

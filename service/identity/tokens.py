"""Tokens that are JWTs: those of an issuer that the configuration names, and our own short-lived ones for clients."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, OctKey
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from model_core.tasks import run_in_thread
from service.clock import Clock
from service.identity.jwks import IssuerKeys
from service.identity.keys import CLIENT_PREFIX, TICKET_S, Master
from service.identity.peers import is_tenant
from service.identity.principal import Forbidden, Means, Principal
from service.identity.remembered import Remembered

MAX_TOKEN_CHARS = 16 * 1024

_CLIENT = "headrace-client"
_MOST_TOKENS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerPolicy:
    """What is asked of an issuer's tokens.

    Attributes:
        issuer, audiences: the token's `iss` must be the one, and its `aud` one of the others.
        algorithms: that may have signed; public-key ones.
        tenant_claim: the claim that holds the tenant.
        models_claim: the claim that holds the models which the token may use, a list or words; empty: it may use all.
        buckets_claim: the same of the S3 buckets that results may be written to; empty: none are the token's own.
        leeway_s: between the issuer's clock and ours.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    tenant_claim: str = "tenant"
    models_claim: str = ""
    buckets_claim: str = ""
    leeway_s: int = 30


class IssuerTokens:
    """Checks tokens of one issuer. A token that was found good is remembered by its digest, for as long as it lasts or `cache_s`.

    Args:
        policy: what is asked of them.
        keys: the issuer's.
        cache_s: how long a good token is not looked at again.
        clock: time for that.
        wall: Unix time.
    """

    def __init__(self, policy: IssuerPolicy, keys: IssuerKeys, cache_s: float, clock: Clock, wall: Callable[[], float]) -> None:
        self._policy, self._keys, self._wall = policy, keys, wall
        self._good: Remembered[bytes, Principal] = Remembered(cache_s, _MOST_TOKENS, clock)

    async def principal(self, token: str) -> Principal | None:
        """Whom `token` is of; None if it is not good. Raises StageUnavailable: the issuer's keys could never be read."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if (known := self._good.get(digest)) is not None:
            return known
        header = _header(token)
        if header is None or header.get("alg") not in self._policy.algorithms:
            return None
        key_id = header.get("kid")
        if not isinstance(key_id, str | None) or (key := await self._keys.key(key_id)) is None:
            return None
        claims = await run_in_thread(_verified, token, key, self._policy.algorithms)
        if claims is None or not self._fits(claims):
            return None
        principal = self._principal(claims)
        if principal is not None:
            self._good.put(digest, principal, ttl_s=float(claims["exp"]) + self._policy.leeway_s - self._wall())
        return principal

    def _fits(self, claims: Mapping[str, Any]) -> bool:
        policy = self._policy
        registry = JWTClaimsRegistry(
            now=int(self._wall()), leeway=policy.leeway_s, iss={"essential": True, "value": policy.issuer},
            aud={"essential": True, "values": list(policy.audiences)}, exp={"essential": True}, sub={"essential": True},
        )  # fmt: skip
        return _valid(registry, claims)

    def _principal(self, claims: Mapping[str, Any]) -> Principal | None:
        tenant, subject = claims.get(self._policy.tenant_claim), claims["sub"]
        if not isinstance(tenant, str) or not is_tenant(tenant) or not isinstance(subject, str):
            return None
        policy = self._policy
        models = _named(claims, policy.models_claim) if policy.models_claim else None
        buckets = _named(claims, policy.buckets_claim) if policy.buckets_claim else frozenset[str]()
        return Principal(tenant=tenant, subject=subject[:256], means=Means.TOKEN, models=models, buckets=buckets)


class ClientTokens:
    """Makes and checks our own tokens. They are signed with a key that is derived from the master secret, so any front door checks them.

    Args:
        master: the secret that all front doors share.
        wall: Unix time.
        new_id: names a token.
    """

    def __init__(self, master: Master, wall: Callable[[], float], new_id: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._key = OctKey.import_key(master.key_for("client tokens"))
        self._wall, self._new_id = wall, new_id

    def make(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        """A token that may do at most what `principal` may, and when it expires.

        Raises:
            Forbidden: the principal has a token itself, which could so outlive its end; or one of `models` is not for it.
        """
        if principal.means in {Means.TOKEN, Means.TICKET}:
            raise Forbidden("a token cannot make another token; it takes an API key")
        for model in models or ():
            principal.check_model(model)
        allowed = principal.models if models is None else frozenset(models)
        longest = min((most for most in (principal.max_seconds, max_seconds) if most is not None), default=None)
        return self._made(replace(principal, models=allowed, max_seconds=longest, origin=origin), Means.TOKEN, seconds)

    def ticket(self, principal: Principal) -> tuple[str, float]:
        """What stands for `principal` as it is, for so short a time that it may stand where a key must not; and when it expires.

        Raises:
            Forbidden: the principal has a ticket itself, which could so be renewed without end.
        """
        if principal.means is Means.TICKET:
            raise Forbidden("a ticket cannot make another ticket; it takes an API key or a token")
        return self._made(principal, Means.TICKET, TICKET_S)

    def _made(self, principal: Principal, means: Means, seconds: float) -> tuple[str, float]:
        expires_at = self._wall() + seconds
        claims: dict[str, Any] = {
            "iss": _CLIENT, "jti": self._new_id(), "exp": expires_at, "tenant": principal.tenant, "sub": principal.subject,
            "of": principal.means.value,
        }  # fmt: skip
        if means is Means.TICKET:
            claims["ticket"] = True
        if principal.models is not None:
            claims["models"] = sorted(principal.models)
        if principal.max_seconds is not None:
            claims["max_seconds"] = principal.max_seconds
        if principal.origin:
            claims["origin"] = principal.origin
        return CLIENT_PREFIX + jwt.encode({"alg": "HS256"}, claims, self._key, algorithms=["HS256"]), expires_at

    def principal(self, token: str) -> tuple[Principal, Means] | None:
        """Whom a token is of, and by which means its maker was known; None if it is not good."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        claims = _verified(token.removeprefix(CLIENT_PREFIX), self._key, ("HS256",))
        registry = JWTClaimsRegistry(now=math.ceil(self._wall()), iss={"essential": True, "value": _CLIENT}, exp={"essential": True})
        if claims is None or not _valid(registry, claims):
            return None
        models, means = claims.get("models"), Means.TICKET if claims.get("ticket") else Means.TOKEN
        principal = Principal(
            tenant=claims["tenant"], subject=claims["sub"], means=means, models=None if models is None else frozenset(models),
            max_seconds=claims.get("max_seconds"), origin=claims.get("origin", ""), derived=True, token=str(claims.get("jti", "")),
        )  # fmt: skip
        return principal, Means(claims["of"])


def _verified(token: str, key: Key, algorithms: Sequence[str]) -> dict[str, Any] | None:
    """The claims, if `key` has signed them by one of `algorithms`."""
    try:
        # Issuers add header fields of their own; those that a reader must understand are named by `crit`, which is checked.
        registry = JWSRegistry(algorithms=list(algorithms), strict_check_header=False)
        claims: Any = jwt.decode(token, key, registry=registry).claims
    except Exception:  # noqa: BLE001 - whatever a stranger's token makes a parser raise, the token is not good
        return None
    return claims if isinstance(claims, dict) else None


def _valid(registry: JWTClaimsRegistry, claims: Mapping[str, Any]) -> bool:
    """Whether the claims are those that are asked for, now."""
    expires_at = claims.get("exp")
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float) or not math.isfinite(expires_at):
        return False
    try:
        registry.validate(dict(claims))
    except (JoseError, TypeError):
        return False
    return True


def _named(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """What a claim lists, as a list or as words."""
    value = claims.get(claim)
    words = value.split() if isinstance(value, str) else value
    return frozenset(word for word in words if isinstance(word, str)) if isinstance(words, list) else frozenset()


def _header(token: str) -> dict[str, Any] | None:
    """What the token says of itself, unverified."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None

"""Who calls: what a door presents, and whom the service takes the caller for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from model_core.errors import HeadraceError


class Unauthenticated(HeadraceError):
    """The caller presents no credential, or one that is unknown, expired or revoked. The message does not say which of these."""


class Forbidden(HeadraceError):
    """The caller is known, and may not do this."""


class QuotaExceeded(HeadraceError):
    """One of the tenant's limits is reached; names the limit, its value and what was used.

    Attributes:
        limit: name of the limit.
        allowed, used: in the limit's unit.
        retry_after_s: None where waiting does not help, as with a spent budget.
    """

    def __init__(self, message: str, *, limit: str, allowed: float, used: float, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.limit, self.allowed, self.used, self.retry_after_s = limit, allowed, used, retry_after_s


class Means(Enum):
    """How a caller is known. The audit log has the value."""

    NOBODY = "none"
    KEY = "key"
    TOKEN = "token"  # noqa: S105 - a kind of credential, not one
    TICKET = "ticket"
    SIGNATURE = "sigv4"
    CERTIFICATE = "certificate"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller, as all of the service knows it.

    Attributes:
        tenant: the account that limits, usage and jobs belong to; empty for nobody in particular.
        subject: of the credential: a key's id, a token's `sub`, a certificate's SPIFFE id. Never a secret.
        means: how the caller is known.
        models: names that it may use; None for all.
        buckets: S3 buckets that results may be written to: the credential's and the tenant's.
        max_seconds: of video in one session or job; None for the server's limit.
        origin: the one web origin that may use the credential; empty for any.
        derived: the credential is a token or a ticket that a front door made of another one, for hands that may not hold that.
        token: names such a credential; empty for others.
        address: where the call comes from, without the port, for the audit log; empty where that is not known.
    """

    tenant: str = ""
    subject: str = ""
    means: Means = Means.NOBODY
    models: frozenset[str] | None = None
    buckets: frozenset[str] = frozenset()
    max_seconds: float | None = None
    origin: str = ""
    derived: bool = False
    token: str = ""
    address: str = field(default="", compare=False)

    @property
    def maker(self) -> str | None:
        """What is written down with what the caller makes, and what it reaches is marked with; None: it reaches all of its tenant's."""
        return (self.token or "?") if self.derived else None

    def check_lasting(self, what: str) -> None:
        """Raises Forbidden: the credential is derived, and `what`, said as an infinitive, is for good and for the whole tenant."""
        if self.derived:
            raise Forbidden(f"a token or ticket that this server made cannot {what}; it takes the credential that it was made with")

    def check_model(self, model: str) -> None:
        """Raises Forbidden: the credential is not for `model`."""
        if self.models is not None and model not in self.models:
            raise Forbidden(f"model must be one of {', '.join(sorted(self.models)) or 'none'} with this credential; got {model}")


NOBODY = Principal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a door knows of the peer before it asks who that is.

    Attributes:
        address: of the peer, without its port; empty where there is none, as on a Unix socket.
        claimed_tenant: what the tenant header says. It counts only from a named proxy.
        certificate_names: URI and DNS names of the client certificate, verified by TLS.
        origin: what a browser sends.
    """

    address: str = ""
    claimed_tenant: str = ""
    certificate_names: tuple[str, ...] = ()
    origin: str = ""


class Authority(Protocol):
    """Says who callers are. All methods raise Unauthenticated, and StageUnavailable where the database does not answer."""

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        """Of an API key, a JWT, or a client token made by `client_token`."""
        ...

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        """Of the id of a SigV4 key pair, with the secrets that may have signed: more than one while a rotation overlaps."""
        ...

    async def without_secret(self, caller: Caller) -> Principal:
        """Of a caller that presents no secret: a client certificate, a named proxy's tenant, or nobody where that is allowed."""
        ...

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        """A short-lived token that may do at most what `principal` may, and when it expires (Unix time)."""
        ...

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        """What stands for `principal` at any front door for a minute, and when it expires (Unix time).

        Also raises Forbidden: the principal is known by a ticket itself, or the server makes none.
        """
        ...

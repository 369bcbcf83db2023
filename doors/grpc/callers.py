"""Who calls, as gRPC knows it: the credential and the tenant in the metadata, the peer's address, the names in its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from model_core.errors import FieldViolation, InvalidRequest
from service.identity.principal import Authority, Caller, Principal

TENANT_KEY = "x-headrace-tenant"
SECRET_KEYS = ("authorization", "x-api-key")

# Properties that gRPC gives to the names of a client certificate once TLS has verified it, by the kind of name. Its list of all names mixes
# the kinds, so a DNS name could pass for a SPIFFE id.
_NAMES = ("peer_uri", "peer_dns")
_UNIX = ("unix", "unix-abstract")

Metadata = Iterable[tuple[str, str | bytes]]


async def authenticated(authority: Authority, context: Any) -> Principal:
    """Whom the call is of.

    Args:
        context: a servicer context of `grpc.aio`.

    Raises:
        Unauthenticated: the credential is missing or no good.
        StageUnavailable: that cannot be known now.
        InvalidRequest: the metadata has two credentials, or two tenants.
    """
    metadata = context.invocation_metadata() or ()
    secret, claimed, address = secret_of(metadata), named_tenant(metadata), address_of(context.peer())
    if secret is not None:
        return await authority.by_secret(secret, Caller(address=address, claimed_tenant=claimed))
    return await authority.without_secret(
        Caller(address=address, claimed_tenant=claimed, certificate_names=_certificate_names(context.auth_context()))
    )


def secret_of(metadata: Metadata) -> str | None:
    """The API key or token that is presented; None where there is none.

    Raises:
        InvalidRequest: there are two, of which a gateway may have added one.
    """
    presented = {_bare(key, _text(value)) for key, value in metadata if key in SECRET_KEYS}
    if len(presented) > 1:
        sentence = f"must be the only credential in the metadata, as {' or '.join(SECRET_KEYS)}; got {len(presented)} different ones"
        raise InvalidRequest((FieldViolation(SECRET_KEYS[0], sentence),))
    return presented.pop() if presented else None


def named_tenant(metadata: Metadata) -> str:
    """What the caller, or the gateway before it, gives for its tenant; empty for nothing.

    Raises:
        InvalidRequest: there are two, so a gateway's may stand beside one that its caller made up.
    """
    named = [_text(value) for key, value in metadata if key == TENANT_KEY]
    if len(named) > 1:
        raise InvalidRequest((FieldViolation(TENANT_KEY, f"must be given at most once in the metadata; got {len(named)}"),))
    return "".join(named)


def address_of(peer: str) -> str:
    """The address in what gRPC says of a peer, such as `ipv4:10.0.0.7:52144` or `ipv6:%5B::1%5D:52144`; empty for a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    if kind in _UNIX:
        return ""
    return rest.rpartition(":")[0].removeprefix("[").removesuffix("]") or peer or "unknown"  # which is nobody's address


def _bare(key: str, value: str) -> str:
    scheme, space, rest = value.partition(" ")
    return rest.strip() if key == "authorization" and space and scheme.lower() == "bearer" else value


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _certificate_names(properties: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    return tuple(name.decode(errors="replace") for kind in _NAMES for name in properties.get(kind, ()))

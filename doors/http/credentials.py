"""Where callers of HTTP put their credential, and how it is kept out of whatever is written down.

The places, in the order in which they count: `Authorization`, `X-API-Key`, `api-key`, `x-goog-api-key`, and `key` in the query. A signature
in `Authorization` is for the room that checks signatures; see `doors.http.room.Authenticating`.

A page in a browser can add no header to its request for a WebSocket. It offers a subprotocol `ticket.TICKET` beside those that it speaks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.types import Scope

from model_core.errors import FieldViolation, InvalidRequest
from service.identity.principal import Authority, Caller, Principal, Unauthenticated

TENANT_HEADER = "x-headrace-tenant"
# Where a connection says in ASGI's scope which names its caller's certificate has.
CERTIFICATE_NAMES = "headrace.certificate_names"
HIDDEN = "[hidden]"

_AUTHORIZATION = b"authorization"
_HEADERS = (_AUTHORIZATION, b"x-api-key", b"api-key", b"x-goog-api-key")
_TENANT = TENANT_HEADER.encode()
_QUERY = "key"
_MOST_FIELDS = 100  # of a query
_BEARER = "bearer "
_SUBPROTOCOL = b"sec-websocket-protocol"
_TICKET = "ticket."
# Shorter ones are no secrets, and would be hidden in the middle of words.
_LEAST_CHARS = 6
# What is a credential wherever it stands: of ours by its beginning, of others by the words before it.
_TELLTALE = re.compile(
    r"\bhr_[A-Za-z0-9]+_[A-Za-z0-9_.-]+|\beyJ[\w-]+\.[\w-]+\.[\w-]+|(?i:(?<=bearer )\S+)|(?<=Signature=)[0-9a-fA-F]+"
    r"|(?<=/v1/watch/)[\w-]+|(?i:(?<=[?&]key=)[^&\s]+)|(?i:(?<=[?&]signature=)[^&\s]+)|\bwhsec_[A-Za-z0-9+/=_-]+"
)

Picked = Mapping[bytes, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request says of who calls.

    Attributes:
        secret: None where there is none.
        caller: what is known without it.
        hidden: every text that must not be written down.
    """

    secret: str | None
    caller: Caller
    hidden: tuple[str, ...]


def presented(scope: Scope, headers: Picked) -> Presented:
    """What the request says.

    Args:
        headers: those of the request, by name.

    Raises:
        InvalidRequest: one that may come once came more often, so one of them may be somebody else's.
    """
    found: list[str] = []
    for name in _HEADERS:
        value = _single(headers, name)
        if value is not None:
            found.append(value[len(_BEARER) :].strip() if name == _AUTHORIZATION and value[: len(_BEARER)].lower() == _BEARER else value)
    if scope["type"] == "websocket":
        found += _tickets(scope)
    if b"key=" in scope["query_string"]:
        found += _of_query(scope["query_string"])
    client = scope.get("client")
    caller = Caller(
        address="" if client is None else client[0],
        claimed_tenant=_single(headers, _TENANT) or "",
        certificate_names=scope.get(CERTIFICATE_NAMES, ()),
        origin=_single(headers, b"origin") or "",
    )
    return Presented(found[0] if found else None, caller, tuple(found))


async def identified(authority: Authority, given: Presented) -> Principal:
    """Who calls. Raises as `Authority`."""
    if given.secret is None:
        return await authority.without_secret(given.caller)
    if not given.secret:
        raise Unauthenticated("the credential is empty")
    return await authority.by_secret(given.secret, given.caller)


def scrubbed(text: str, hidden: Sequence[str] = ()) -> str:
    """`text` without the secrets in `hidden`, and without what looks like one."""
    for secret in hidden:
        if len(secret) >= _LEAST_CHARS:
            text = text.replace(secret, HIDDEN)
    return _TELLTALE.sub(HIDDEN, text)


def subprotocols(scope: Scope) -> list[str]:
    """What a request for a WebSocket offers to speak, without its ticket."""
    return [name for name in _offered(scope) if not name.startswith(_TICKET)]


def _tickets(scope: Scope) -> list[str]:
    found = [name.removeprefix(_TICKET) for name in _offered(scope) if name.startswith(_TICKET)]
    if len(found) > 1:
        raise InvalidRequest((FieldViolation("Sec-WebSocket-Protocol", f"must offer at most one ticket; got {len(found)}"),))
    return found


def _offered(scope: Scope) -> list[str]:
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _SUBPROTOCOL]
    return [name for line in lines for each in line.split(",") if (name := each.strip())]


def _single(headers: Picked, name: bytes) -> str | None:
    values = headers.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise InvalidRequest((FieldViolation(name.decode(), f"must be given at most once; got {len(values)}"),))
    return values[0].decode("latin-1").strip()


def _of_query(query: bytes) -> list[str]:
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidRequest((FieldViolation("query", f"must have at most {_MOST_FIELDS} fields"),)) from None
    found = [value for name, value in fields if name == _QUERY]
    if len(found) > 1:
        raise InvalidRequest((FieldViolation(_QUERY, f"must be given at most once; got {len(found)}"),))
    return found

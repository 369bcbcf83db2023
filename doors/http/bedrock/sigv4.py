"""AWS Signature Version 4, as a server checks it. Pure: it knows no clock and no keys.

A client hashes the parts of its request that it lists, and signs the hash with a key made of its secret, the day, the region and the
service. The server makes the same hash of what arrived. It follows what the client says that it signed, since clients differ in that.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from service.identity.principal import Unauthenticated

MAX_SKEW_S = 15 * 60.0

_ALGORITHM = "AWS4-HMAC-SHA256"
_TERMINATOR = "aws4_request"
_TIME = "%Y%m%dT%H%M%SZ"
_HEADER = re.compile(
    _ALGORITHM + r"\s+Credential=(?P<access_key>[^\s,/]{1,256})/(?P<day>\d{8})/(?P<region>[\w-]{1,64})/(?P<service>[\w-]{1,64})/"
    + _TERMINATOR + r"\s*,\s*SignedHeaders=(?P<signed>[^\s,]{1,4096})\s*,\s*Signature=(?P<signature>[0-9a-f]{64})\s*",
    re.ASCII,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived, as far as a signature covers it.

    Attributes:
        path: raw, still encoded, without the query.
        query: raw.
        headers: names in lower case, with values, in order.
    """

    method: str
    path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]

    def values(self, name: str) -> list[bytes]:
        """Of the header `name`, in order."""
        wanted = name.encode()
        return [value for header, value in self.headers if header == wanted]


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an Authorization header of this scheme says."""

    access_key: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


def parse(header: str) -> Authorization | None:
    """What `header` says; None for another scheme.

    Raises:
        Unauthenticated: it is of this scheme, and not well formed.
    """
    if not header.startswith(_ALGORITHM):
        return None
    match = _HEADER.fullmatch(header)
    if match is None:
        raise Unauthenticated(f"Authorization: must be {_ALGORITHM} with a Credential of 5 parts, SignedHeaders and a Signature")
    signed = tuple(match["signed"].lower().split(";"))
    return Authorization(match["access_key"], match["day"], match["region"], match["service"], signed, match["signature"])


def check_terms(received: Received, authorization: Authorization, service: str, now: float) -> None:
    """Check all that needs no secret, so that callers learn what to mend: their clock, or what they sign.

    Args:
        service: the one that the signature must be for.
        now: Unix time.

    Raises:
        Unauthenticated: with what is wrong.
    """
    if authorization.service != service:
        raise Unauthenticated(f"Authorization: the Credential must be for the service {service}; got {authorization.service}")
    if "host" not in authorization.signed_headers:
        raise Unauthenticated("Authorization: SignedHeaders must contain host")
    time = _time(received)
    if time[:8] != authorization.day:
        raise Unauthenticated(f"Authorization: the Credential must be of the day of x-amz-date, {time[:8]}; got {authorization.day}")
    apart = abs(datetime.strptime(time, _TIME).replace(tzinfo=UTC).timestamp() - now)
    if apart > MAX_SKEW_S:
        raise Unauthenticated(f"x-amz-date: must be within {MAX_SKEW_S:g} s of this server's clock; got {apart:.0f} s")


def verify(received: Received, authorization: Authorization, body_sha256: str, secrets: Iterable[str]) -> None:
    """Check the signature.

    Args:
        body_sha256: hexadecimal, of the body as it arrived.
        secrets: any of them may have signed.

    Raises:
        Unauthenticated: none of them signed this request.
    """
    canonical = _canonical(received, authorization.signed_headers, body_sha256)
    scope = f"{authorization.day}/{authorization.region}/{authorization.service}/{_TERMINATOR}"
    to_sign = "\n".join((_ALGORITHM, _time(received), scope, hashlib.sha256(canonical).hexdigest()))
    announced = received.values("x-amz-content-sha256")
    sound = all(value.decode("latin-1").lower() == body_sha256 for value in announced)
    signed = False
    for secret in secrets:
        signed |= hmac.compare_digest(_signature(secret, authorization, to_sign), authorization.signature)
    if not (signed and sound):
        raise Unauthenticated("the signature must be made of this request with a secret that is valid here")


def _time(received: Received) -> str:
    values = received.values("x-amz-date")
    time = values[0].decode("latin-1") if len(values) == 1 else ""
    try:
        datetime.strptime(time, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise Unauthenticated("x-amz-date: must be given once, as YYYYMMDD'T'HHMMSS'Z'") from None
    return time


def _canonical(received: Received, signed_headers: Sequence[str], body_sha256: str) -> bytes:
    headers = b"".join(
        name.encode() + b":" + b",".join(b" ".join(value.split()) for value in received.values(name)) + b"\n" for name in signed_headers
    )
    lines = (
        received.method.upper().encode(),
        quote(received.path or b"/", safe="/").encode(),  # what is encoded already is encoded once more
        _canonical_query(received.query),
        headers,
        ";".join(signed_headers).encode(),
        body_sha256.encode(),
    )
    return b"\n".join(lines)


def _canonical_query(query: bytes) -> bytes:
    pairs = (part.partition(b"=") for part in query.split(b"&") if part)
    ordered = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in ordered).encode()


def _encoded(part: bytes) -> str:
    return quote(unquote_to_bytes(part), safe="")


def _signature(secret: str, authorization: Authorization, to_sign: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (authorization.day, authorization.region, authorization.service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()

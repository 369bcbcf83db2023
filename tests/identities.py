"""Keys, tokens and certificates for tests, and a database that counts what is asked of it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import Connection

from model_core.errors import StageUnavailable
from service.database.engine import Database
from service.identity import table
from service.identity.authority import Doorkeeper
from service.identity.keys import Keyring, Master, NewSecret
from service.identity.known_keys import KnownKeys
from service.identity.peers import Proxies
from service.identity.tokens import ClientTokens, IssuerTokens
from tests.fakes import ManualClock

T = TypeVar("T")

MASTER = "a-master-secret-that-must-appear-nowhere"
NOW = 1_800_000_000.0
ISSUER, AUDIENCE = "https://login.example.org", "headrace"


class CountedDatabase(Database):
    """Counts calls, and can be away."""

    calls = 0
    away = False

    async def run(self, work: Callable[[Connection], T], *, write: bool = True, lazy: bool = False) -> T:
        self.calls += 1
        if self.away:
            raise StageUnavailable("the database does not answer; try again")
        return await super().run(work, write=write, lazy=lazy)


class Wall:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[CountedDatabase, None]:
    database = await CountedDatabase.open(url, timeout_s=60.0)
    database.calls = 0
    try:
        yield database
    finally:
        await database.close()


def sqlite(folder: Path) -> AbstractAsyncContextManager[CountedDatabase]:
    return opened(f"sqlite:///{folder}/headrace.db")


@dataclass(frozen=True, slots=True)
class Kept:
    """A doorkeeper with keys, and what it stands on."""

    authority: Doorkeeper
    database: CountedDatabase
    ring: Keyring
    clock: ManualClock
    wall: Wall
    keys: KnownKeys

    async def key(self, tenant: str = "studio", **facts: Any) -> NewSecret:
        """A new key in the table."""
        secret = self.ring.new()
        await self.database.run(lambda connection: table.create(connection, secret, self.wall(), tenant=tenant, **facts))
        self.database.calls = 0
        return secret


@asynccontextmanager
async def kept(
    folder: Path,
    *,
    issuer: IssuerTokens | None = None,
    certificates: Mapping[str, str] | None = None,
    proxies: Sequence[str] = (),
    buckets: Mapping[str, Sequence[str]] | None = None,
    cache_s: float = 30.0,
) -> AsyncGenerator[Kept, None]:
    clock, wall, master = ManualClock(), Wall(), Master(MASTER)
    async with sqlite(folder) as database:
        ring = Keyring(master)
        keys = KnownKeys(database, ring, cache_s, clock, wall)
        authority = Doorkeeper(
            keys=keys, issuer=issuer, client_tokens=ClientTokens(master, wall), certificates=certificates, proxies=Proxies(proxies),
            buckets=buckets,
        )  # fmt: skip
        yield Kept(authority, database, ring, clock, wall, keys)
        await keys.aclose()


class Provider:
    """An OpenID provider: signs tokens, and has a set of public keys."""

    def __init__(self) -> None:
        self.keys: dict[str, ECKey] = {}
        self.reads = 0
        self.broken = False
        self.add("one")

    def add(self, key_id: str) -> None:
        self.keys[key_id] = ECKey.generate_key("P-256", {"kid": key_id})

    def fetch(self) -> bytes:
        self.reads += 1
        if self.broken:
            raise OSError("no route to host")
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys.values()]}).encode()

    def token(self, key_id: str = "one", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A sound token, but for what `claims` change; None takes a claim away."""
        sound = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-7", "exp": NOW + 600, "nbf": NOW - 60, "tenant": "studio"}
        told = {name: value for name, value in {**sound, **claims}.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": key_id, **(header or {})}, told, self.keys[key_id], algorithms=["ES256"])


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    chain: bytes
    key: bytes
    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey


def issued(
    name: str, by: Issued | None = None, *, uris: Sequence[str] = (), dns: Sequence[str] = (), authority: bool = False, local: bool = True
) -> Issued:
    """A certificate, signed by another one or by itself. `local`: for 127.0.0.1, too."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if local else []
    names += [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(each) for each in dns]
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(
            issuer_name=subject if by is None else by.certificate.subject, subject_name=subject, public_key=private.public_key(),
            serial_number=x509.random_serial_number(),
        )
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(private if by is None else by.private, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    key = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Issued(certificate.public_bytes(pem), key, certificate, private)

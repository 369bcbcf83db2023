"""Client certificates over HTTP: who shows one is known by it, and who shows none may have a key."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from doors.http.options import HttpTls
from service.identity.authority import Doorkeeper
from service.identity.principal import Caller, Means, Principal
from tests.http_served import OPTIONS, HttpServed, http_serving
from tests.identities import Issued, issued

STUDIO = "spiffe://example.org/studio"
KEY = {"x-api-key": "acme"}
REQUEST = b"GET /v1/models HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


class Seen(Doorkeeper):
    """Knows two names, and notes whom it was asked about."""

    def __init__(self) -> None:
        super().__init__(certificates={STUDIO: "studio", "worker.example.org": "batch"})
        self.callers: list[Caller] = []
        self.principals: list[Principal] = []

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        return Principal(tenant=presented, subject="key-1", means=Means.KEY)

    async def without_secret(self, caller: Caller) -> Principal:
        self.callers.append(caller)
        principal = await super().without_secret(caller)
        self.principals.append(principal)
        return principal


@dataclass(frozen=True, slots=True)
class Mutual:
    served: HttpServed
    authority: Seen
    server: Issued
    ca_file: Path
    folder: Path

    def context(self, client: Issued | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.server.chain.decode())
        if client is not None:
            chain, key = self.folder / "client.crt", self.folder / "client.key"
            chain.write_bytes(client.chain)
            key.write_bytes(client.key)
            context.load_cert_chain(chain, key)
        return context

    @asynccontextmanager
    async def client(self, shown: Issued | None = None) -> AsyncGenerator[httpx.AsyncClient, None]:
        url, context = f"https://127.0.0.1:{self.served.port}", self.context(shown)
        async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False, timeout=600) as client:
            yield client

    async def status(self, shown: Issued | None = None, headers: dict[str, str] | None = None) -> int:
        async with self.client(shown) as client:
            return (await client.get("/v1/models", headers=headers)).status_code


@asynccontextmanager
async def mutual(folder: Path, ca: Issued) -> AsyncGenerator[Mutual, None]:
    server, authority = issued("server"), Seen()
    tls = HttpTls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    for path, data in zip(tls.files, (server.chain, server.key, ca.chain), strict=True):
        path.write_bytes(data)
    trusting = ssl.create_default_context(cadata=server.chain.decode())
    async with http_serving(options=replace(OPTIONS, tls=tls), verify=trusting, authority=authority) as served:
        yield Mutual(served, authority, server, folder / "ca.crt", folder)


async def test_a_certificate_is_its_tenants_as_over_grpc(tmp_path: Path) -> None:
    ca = issued("clients", authority=True)
    async with mutual(tmp_path, ca) as door:
        for client in (issued("a", ca, dns=["other.example.org"], uris=[STUDIO]), issued("b", ca, dns=["worker.example.org"])):
            assert await door.status(client) == 200
        assert door.authority.principals == [
            Principal(tenant="studio", subject=STUDIO, means=Means.CERTIFICATE),
            Principal(tenant="batch", subject="worker.example.org", means=Means.CERTIFICATE),
        ]
        assert door.authority.callers[0].certificate_names == (STUDIO, "other.example.org")
        for client in (issued("c", ca, uris=[STUDIO + "/2"]), issued(STUDIO, ca), issued("d", ca, dns=["studio"])):
            assert await door.status(client) == 401


async def test_none_has_to_be_shown_and_a_key_counts_first(tmp_path: Path) -> None:
    ca = issued("clients", authority=True)
    async with mutual(tmp_path, ca) as door:
        assert await door.status() == 401
        assert await door.status(headers=KEY) == 200
        assert await door.status(issued("a", ca, uris=[STUDIO]), KEY) == 200
        assert door.authority.principals == []


async def test_one_that_is_shown_must_be_good(tmp_path: Path) -> None:
    async with mutual(tmp_path, issued("clients", authority=True)) as door:
        for client in (issued("a", issued("others", authority=True), uris=[STUDIO]), issued("b", uris=[STUDIO])):
            with pytest.raises(httpx.HTTPError):
                await door.status(client, KEY)
        assert door.authority.principals == []


async def test_every_request_of_a_connection_is_of_its_certificate(tmp_path: Path) -> None:
    ca = issued("clients", authority=True)
    async with mutual(tmp_path, ca) as door, door.client(issued("a", ca, uris=[STUDIO])) as client:
        for _ in range(3):
            assert (await client.get("/v1/models")).status_code == 200
        assert [principal.tenant for principal in door.authority.principals] == ["studio"] * 3


def asked(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bytes, ssl.SSLSession | None]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=600) as bare,
        context.wrap_socket(bare, server_hostname="127.0.0.1", session=session) as secured,
    ):
        secured.sendall(REQUEST)
        return secured.recv(100), secured.session


async def test_an_authority_that_is_replaced_counts_for_new_connections_and_no_session_outlives_it(tmp_path: Path) -> None:
    old_ca, new_ca = issued("old", authority=True), issued("new", authority=True)
    old, new = issued("a", old_ca, uris=[STUDIO]), issued("b", new_ca, uris=[STUDIO])
    async with mutual(tmp_path, old_ca) as door:
        resuming = door.context(old)
        resuming.maximum_version = ssl.TLSVersion.TLSv1_2  # where a session is there with the handshake
        answer, session = await asyncio.to_thread(asked, door.served.port, resuming)
        assert answer.startswith(b"HTTP/1.1 200")
        assert session is not None
        async with door.client(old) as open_:
            assert (await open_.get("/v1/models")).status_code == 200
            (fresh := tmp_path / "ca.new").write_bytes(new_ca.chain)
            fresh.replace(door.ca_file)
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await door.status(new) == 200
                        break
                    except httpx.HTTPError:
                        await asyncio.sleep(0.02)
            assert (await open_.get("/v1/models")).status_code == 200, "a connection that is open goes on"
        with pytest.raises(httpx.HTTPError):
            await door.status(old)
        with pytest.raises(OSError, match=r"."):
            await asyncio.to_thread(asked, door.served.port, resuming, session)

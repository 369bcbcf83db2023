"""TLS of the gRPC door: client certificates, and files that are replaced while it serves."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from doors.grpc.certificates import FixedTls, TlsFiles, TlsIdentity, TlsSource
from headrace.client import ClientError, Connecting, HeadraceClient, Refused
from service.identity.authority import Doorkeeper
from service.identity.principal import Caller, Means, Principal
from tests.identities import Issued, issued
from tests.served import serving

STUDIO = "spiffe://example.org/studio"
QUICK = Connecting(attempt_s=0.5, give_up_after_s=1.0)


@dataclass(frozen=True, slots=True)
class Files:
    """What an operator puts on a node."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        return self.folder / "tls.key"

    @property
    def client_ca(self) -> Path:
        return self.folder / "ca.crt"

    def put(self, path: Path, content: bytes) -> None:
        """Replace a file as programs that renew certificates do."""
        (fresh := path.with_suffix(".new")).write_bytes(content)
        fresh.replace(path)

    def serve(self, server: Issued) -> None:
        self.put(self.certificate, server.chain)
        self.put(self.key, server.key)


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def credentials(trusts: Issued, client: Issued | None = None) -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(trusts.chain)
    return grpc.ssl_channel_credentials(trusts.chain, client.key, client.chain)


class Seen(Doorkeeper):
    """Notes whom it was asked about."""

    def __init__(self) -> None:
        super().__init__(certificates={STUDIO: "studio", "worker.example.org": "batch"})
        self.principals: list[Principal] = []

    async def without_secret(self, caller: Caller) -> Principal:
        principal = await super().without_secret(caller)
        self.principals.append(principal)
        return principal


@asynccontextmanager
async def mutual(tls: TlsSource) -> AsyncGenerator[tuple[str, Seen], None]:
    authority = Seen()
    async with serving(tls=tls, authority=authority) as served:
        yield served.address, authority


async def test_a_client_certificate_is_its_tenants() -> None:
    ca, server = issued("clients", authority=True), issued("server")
    tls = FixedTls(TlsIdentity(server.chain, server.key, ca.chain))
    async with mutual(tls) as (address, authority):
        for client in (issued("a", ca, uris=[STUDIO]), issued("b", ca, dns=["worker.example.org"])):
            async with HeadraceClient(address, credentials(server, client)) as caller:
                assert await caller.list_models()
        assert authority.principals == [
            Principal(tenant="studio", subject=STUDIO, means=Means.CERTIFICATE),
            Principal(tenant="batch", subject="worker.example.org", means=Means.CERTIFICATE),
        ]
        others = issued("c", ca, uris=[STUDIO + "/2"]), issued(STUDIO, ca), issued("d", ca, dns=["studio"])
        for client in others:
            async with HeadraceClient(address, credentials(server, client)) as caller:
                with pytest.raises(Refused):
                    await caller.list_models()


async def test_nobody_without_a_good_certificate_gets_through_the_handshake() -> None:
    ca, server = issued("clients", authority=True), issued("server")
    async with mutual(FixedTls(TlsIdentity(server.chain, server.key, ca.chain))) as (address, authority):
        for client in (None, issued("a", issued("others", authority=True), uris=[STUDIO]), issued("b", uris=[STUDIO])):
            async with HeadraceClient(address, credentials(server, client), connecting=QUICK) as caller:
                with pytest.raises(ClientError):
                    await caller.list_models(timeout_s=2.0)
        assert authority.principals == []


async def test_files_that_are_replaced_count_for_new_connections(files: Files) -> None:
    first, second = issued("first"), issued("second")
    files.serve(first)
    async with serving(tls=TlsFiles(files.certificate, files.key)) as served:
        async with HeadraceClient(served.address, credentials(first)) as old:
            assert await old.list_models()
            files.serve(second)
            async with HeadraceClient(served.address, credentials(second)) as new:
                assert await new.list_models()
            assert await old.list_models(), "a connection that is open goes on"
        async with HeadraceClient(served.address, credentials(first), connecting=QUICK) as late:
            with pytest.raises(ClientError):
                await late.list_models(timeout_s=2.0)


async def test_the_authority_of_clients_may_be_replaced_too(files: Files) -> None:
    server, old_ca, new_ca = issued("server"), issued("old", authority=True), issued("new", authority=True)
    files.serve(server)
    files.put(files.client_ca, old_ca.chain)
    old, new = issued("a", old_ca, uris=[STUDIO]), issued("b", new_ca, uris=[STUDIO])
    async with mutual(TlsFiles(files.certificate, files.key, files.client_ca)) as (address, _):
        async with HeadraceClient(address, credentials(server, old)) as caller:
            assert await caller.list_models()
        files.put(files.client_ca, new_ca.chain)
        async with HeadraceClient(address, credentials(server, new)) as caller:
            assert await caller.list_models()
        async with HeadraceClient(address, credentials(server, old), connecting=QUICK) as caller:
            with pytest.raises(ClientError):
                await caller.list_models(timeout_s=2.0)


def test_files_that_do_not_belong_together_yet_change_nothing(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    first, second = issued("first"), issued("second")
    files.serve(first)
    tls = TlsFiles(files.certificate, files.key)
    files.put(files.certificate, second.chain)
    assert tls.renewed() is None
    files.put(files.certificate, b"half a certifi")
    assert tls.renewed() is None
    files.certificate.unlink()
    assert tls.renewed() is None
    assert tls.current().certificate_chain == first.chain
    assert str(files.certificate) in caplog.text
    files.serve(second)
    renewed = tls.renewed()
    assert renewed == tls.current() == TlsIdentity(second.chain, second.key)
    assert tls.renewed() is None
    for planted in (first.key, second.key):
        assert planted.splitlines()[1].decode() not in caplog.text + repr(renewed)


def test_files_that_do_not_belong_together_are_not_served(files: Files) -> None:
    files.put(files.certificate, issued("first").chain)
    files.put(files.key, issued("second").key)
    with pytest.raises(ssl.SSLError):
        TlsFiles(files.certificate, files.key)
    with pytest.raises(OSError, match="No such file"):
        TlsFiles(files.certificate, files.folder / "none")

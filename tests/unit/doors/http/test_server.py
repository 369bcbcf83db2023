"""Listening, TLS, and the end of the server."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.types import Receive, Scope, Send

from doors.http.options import HttpOptions, HttpTls
from doors.http.server import Certificate, HttpServer
from doors.http.sockets.connection import SocketConnection
from tests.fakes import eventually
from tests.http_served import OPTIONS, http_serving
from tests.toy_socket import until_closed


class Toy:
    """Answers everything, one word."""

    def stop_serving(self) -> None:
        """It has nothing to stop."""

    def close(self) -> None:
        """It has nothing to close."""

    async def socket(self, scope: Scope, wire: SocketConnection) -> None:
        """It has no WebSocket."""
        wire.refuse(404, (), b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Stubborn(Toy):
    """Does not answer, and is not done when it is cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(2)


async def test_two_servers_share_a_port_and_a_third_finds_it_taken() -> None:
    first = HttpServer(Toy(), OPTIONS)
    port = await first.start()
    second = HttpServer(Toy(), replace(OPTIONS, port=port))
    assert await second.start() == port
    try:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"
    finally:
        await asyncio.gather(first.stop(0), second.stop(0))


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no such host", 0), ("127.0.0.1", 1)])
async def test_an_address_that_cannot_be_bound_is_a_runtime_error(host: str, port: int) -> None:
    if port and os.geteuid() == 0:
        pytest.skip("root may bind any port")
    with pytest.raises(RuntimeError, match="cannot be listened on"):
        await HttpServer(Toy(), replace(OPTIONS, host=host, port=port)).start()


async def test_a_server_starts_once_and_stops_only_after_that() -> None:
    server = HttpServer(Toy(), OPTIONS)
    with pytest.raises(RuntimeError, match="was not started"):
        await server.stop(0)
    await server.start()
    with pytest.raises(RuntimeError, match="once"):
        await server.start()
    await server.stop(0)


async def test_no_answer_waits_for_the_callers_acknowledgement() -> None:
    async with http_serving() as served:
        _, writer = await served.connect()
        await eventually(lambda: bool(served.server.connections))
        (connection,) = served.server.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()


async def test_the_kernel_asks_callers_who_say_nothing_whether_they_are_there() -> None:
    async with http_serving() as served:
        _, writer = await served.connect()
        await eventually(lambda: bool(served.server.connections))
        (connection,) = served.server.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        asked = [accepted.getsockopt(socket.IPPROTO_TCP, each) for each in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)]
        assert asked == [15, 10, 3]
        writer.close()


async def test_a_look_that_fails_ends_that_connection_and_no_other_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(now: float) -> None:
        raise ValueError("a defect")

    async with http_serving(options=replace(OPTIONS, head_timeout_s=0.2)) as served:
        for defective in (True, False):
            reader, writer = await served.connect()
            if defective:
                await eventually(lambda: bool(served.server.connections))
                (connection,) = served.server.connections
                monkeypatch.setattr(connection, "sweep", fails)
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()
        assert "a defect" in caplog.text


async def test_a_certificate_that_cannot_be_followed_ends_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(certificate: Certificate) -> bool:
        raise ValueError("a defect")

    monkeypatch.setattr(Certificate, "renewed", fails)
    tls, pem = made(tmp_path, "first")
    context = ssl.create_default_context(cadata=pem.decode())
    async with http_serving(options=replace(OPTIONS, tls=tls), verify=context) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        await eventually(lambda: bool(served.server.connections))
        (connection,) = served.server.connections
        looks: list[float] = []
        monkeypatch.setattr(connection, "sweep", looks.append)
        await eventually(lambda: len(looks) > 1)
        writer.close()
    assert "a defect" in caplog.text


async def test_signals_stay_the_processs_own() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    server = HttpServer(Toy(), OPTIONS)
    await server.start()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    await server.stop(0)


async def test_a_handler_that_does_not_end_does_not_hold_up_the_stop() -> None:
    toy = Stubborn()
    server = HttpServer(toy, OPTIONS)
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    await toy.begun.wait()
    async with asyncio.timeout(20):
        await server.stop(0.05)
    assert await until_closed(reader) == b""
    writer.close()


async def test_a_reader_that_takes_nothing_does_not_hold_up_the_stop() -> None:
    async with http_serving(options=replace(OPTIONS, stall_s=3600)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        body = b'{"prompt": "a red circle", "seconds": 3600, "codec": "raw", "format": "sse"}'
        writer.write(b"POST /v1/stream HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await eventually(lambda: served.desk.statistics().live == 1)
        async with asyncio.timeout(20):
            await served.doors.drain(grace_s=0.1)
        writer.transport.abort()
        del reader


def made(folder: Path, name: str) -> tuple[HttpTls, bytes]:
    """A self-signed certificate for 127.0.0.1, written down."""
    key = ec.generate_private_key(ec.SECP256R1())
    who, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=who, subject_name=who, public_key=key.public_key(), serial_number=x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    chain = certificate.public_bytes(pem)
    tls = HttpTls(folder / "tls.crt", folder / "tls.key")
    tls.key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    tls.certificate_file.write_bytes(chain)
    return tls, chain


def shown(port: int) -> bytes:
    """The certificate that a server shows."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=600).encode()


async def test_tls_serves_those_who_trust_the_certificate_and_follows_its_files(tmp_path: Path) -> None:
    tls, first = made(tmp_path, "first")
    context = ssl.create_default_context(cadata=first.decode())
    async with http_serving(options=replace(OPTIONS, tls=tls), verify=context) as served:
        await served.still_serves()
        with pytest.raises(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False) as plain:
                await plain.get(f"http://127.0.0.1:{served.port}/healthz", timeout=5)
        assert (await asyncio.to_thread(shown, served.port)).strip() == first.strip()

        tls.certificate_file.write_text("half a certifi")
        await asyncio.sleep(0.1)
        assert (await asyncio.to_thread(shown, served.port)).strip() == first.strip()
        _, second = made(tmp_path, "second")
        async with asyncio.timeout(20):
            while (await asyncio.to_thread(shown, served.port)).strip() != second.strip():  # noqa: ASYNC110 - polling is what is tested
                await asyncio.sleep(0.02)


async def test_a_certificate_that_cannot_be_read_is_a_runtime_error(tmp_path: Path) -> None:
    tls = HttpTls(tmp_path / "no.crt", tmp_path / "no.key")
    with pytest.raises(RuntimeError, match="cannot be served"):
        await HttpServer(Toy(), HttpOptions(tls=tls)).start()

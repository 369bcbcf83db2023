"""Whether a front door serves, asked by whoever started it, whatever its TLS asks for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.cluster.health import serving as asked
from deployments.cluster.local import free_port
from deployments.config.application import AppConfig
from doors.grpc.certificates import FixedTls, TlsIdentity
from doors.http.options import HttpTls
from service.health import Probe
from tests.fakes import eventually
from tests.http_served import OPTIONS, http_serving
from tests.identities import Issued, issued
from tests.served import answers, serving

CLIENTS = {"ca_file": "unread.crt", "tenants": {"spiffe://example.org/studio": "studio"}}


async def never() -> bool:
    raise OSError("nobody answers")


def probes(probe: Probe) -> dict[str, Probe]:
    return dict.fromkeys(("text_encoder", "denoiser", "decoder"), probe)


def written(folder: Path, server: Issued) -> dict[str, str]:
    files = {"certificate_file": folder / "tls.crt", "key_file": folder / "tls.key"}
    files["certificate_file"].write_bytes(server.chain)
    files["key_file"].write_bytes(server.key)
    return {name: str(path) for name, path in files.items()}


def config(port: int, *, tls: dict[str, str] | None = None, http: dict[str, Any] | None = None, **args: Any) -> AppConfig:
    return AppConfig.model_validate({"front_door": {"port": port, "tls": tls, "http": http or {}}, **args})


async def said(of: AppConfig) -> bool:
    return await asyncio.to_thread(asked, of)


async def until_said(of: AppConfig) -> None:
    async with asyncio.timeout(20):
        while not await said(of):  # noqa: ASYNC110 - to ask again is what is tested
            await asyncio.sleep(0.02)


@asynccontextmanager
async def door(tls: FixedTls | None = None, probe: Probe = answers) -> AsyncGenerator[int, None]:
    async with serving(tls=tls, probes=probes(probe)) as served:
        yield int(served.address.rpartition(":")[2])


def own() -> Issued:
    return issued("server")


def of_an_authority_and_for_another_name() -> Issued:
    return issued("server", issued("authority", authority=True), dns=["*.video.example.org"], local=False)


@pytest.mark.parametrize("made", [own, of_an_authority_and_for_another_name])
async def test_over_tls_its_certificate_is_trusted_as_it_stands_in_the_file(tmp_path: Path, made: Any) -> None:
    server = made()
    tls = FixedTls(TlsIdentity(server.chain, server.key))
    async with door(tls) as port:
        of = config(port, tls=written(tmp_path, server))
        await until_said(of)
        other = config(port, tls=written(tmp_path, issued("another")))
        assert not await said(other), "somebody else listens there"
    async with door(tls, probe=never) as port:
        assert not await said(config(port, tls=written(tmp_path, server)))


async def test_without_tls_it_is_asked_in_plain_text() -> None:
    async with door() as port:
        await until_said(config(port))
    async with door(probe=never) as port:
        assert not await said(config(port))
    assert not await said(config(free_port()))


@pytest.mark.parametrize("secured", [False, True])
async def test_where_callers_need_certificates_the_http_port_is_asked(tmp_path: Path, secured: bool) -> None:
    server = own()
    files = written(tmp_path, server)
    http_tls = HttpTls(Path(files["certificate_file"]), Path(files["key_file"])) if secured else None
    verify = ssl.create_default_context(cadata=server.chain.decode())
    for probe, serves in ((answers, True), (never, False)):
        async with http_serving(options=replace(OPTIONS, tls=http_tls), verify=verify, probes=probes(probe)) as served:
            http = {"port": served.port, "tls": files if secured else None}
            of = config(free_port(), tls=files, http=http, identity={"certificates": CLIENTS})
            await eventually(lambda: served.monitor.health.ready is serves)  # noqa: B023 - it is waited for here
            assert await said(of) is serves


async def test_without_http_either_somebody_has_to_listen(tmp_path: Path) -> None:
    server, ca = own(), issued("clients", authority=True)
    files = written(tmp_path, server)
    async with door(FixedTls(TlsIdentity(server.chain, server.key, ca.chain))) as port:
        assert await said(config(port, tls=files, identity={"certificates": CLIENTS}))
    assert not await said(config(free_port(), tls=files, identity={"certificates": CLIENTS}))

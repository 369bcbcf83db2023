"""Commands that call a server over TLS, as a person runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import pytest

from doors.grpc.certificates import FixedTls, TlsIdentity
from headrace.cli import broadcast, generate, live, models, replay, restyle, status, watch, whip
from service.identity.authority import Doorkeeper
from tests.identities import Issued, issued
from tests.served import serving
from tests.unit.headrace.test_cli import headrace

STUDIO = "spiffe://example.org/studio"


@dataclass(frozen=True, slots=True)
class Files:
    """Certificates as a person has them."""

    folder: Path

    def put(self, name: str, content: bytes) -> str:
        (path := self.folder / name).write_bytes(content)
        return str(path)

    def pair(self, who: Issued) -> tuple[str, ...]:
        return "--cert", self.put("me.crt", who.chain), "--cert-key", self.put("me.key", who.key)


@pytest.mark.parametrize(
    "command",
    [
        broadcast.broadcast,
        generate.generate,
        live.live,
        models.models,
        replay.replay,
        restyle.restyle,
        status.status,
        watch.watch,
        whip.whip,
    ],
)
def test_each_command_that_calls_a_server_has_every_option_of_how_to_reach_it(command: Callable[..., None]) -> None:
    assert {"key", "tls", "ca", "cert", "cert_key"} <= set(signature(command).parameters)
    assert "access" not in signature(command).parameters


async def test_a_server_is_called_over_tls_by_whoever_trusts_its_authority(tmp_path: Path) -> None:
    ca, files = issued("authority", authority=True), Files(tmp_path)
    server = issued("server", ca)
    trusting = ("--ca", files.put("ca.crt", ca.chain))
    async with serving(tls=FixedTls(TlsIdentity(server.chain, server.key))) as served:
        to = ("--address", served.address)
        status = await headrace("status", *to, *trusting, "--json")
        assert status.report()["server"] == "SERVING", status
        made = await headrace("generate", "a red circle", *to, *trusting, "--tls", "--seconds", "0.5", "--json")
        assert made.report()["frames"] == 12, made
        whole = await headrace("generate", "a red circle", *to, *trusting, "--seconds", "0.5", "--mode", "unary", "--json")
        assert whole.report()["frames"] == 12, whole
        for stranger in ((), ("--tls",)):
            told = await headrace("models", *to, *stranger)
            assert (told.code, told.out) == (1, "")
            assert "Traceback" not in told.err


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    ca, files = issued("clients", authority=True), Files(tmp_path)
    server = issued("server")
    tls = FixedTls(TlsIdentity(server.chain, server.key, ca.chain))
    async with serving(tls=tls, authority=Doorkeeper(certificates={STUDIO: "studio"})) as served:
        trusting = ("--address", served.address, "--ca", files.put("server.crt", server.chain))
        known = await headrace("models", *trusting, *files.pair(issued("me", ca, uris=[STUDIO])), "--json")
        assert [model["name"] for model in known.report()["models"]] == [served.stages.config.name], known
        without = await headrace("models", *trusting)
        assert without.code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("models", "--ca", "none.crt"), "--ca: must be a file that exists; got 'none.crt'"),
        (("models", "--ca", "NO-PEM"), "--ca: must be a PEM file of certificates; got '"),
        (("models", "--cert", "ME"), "--cert-key: must be given together with --cert; got none"),
        (("status", "--cert-key", "ME"), "--cert: must be given together with --cert-key; got none"),
        (("live", "a", "--cert", "ME", "--cert-key", "NO-PEM"), "--cert: must be a PEM file of the certificate that --cert-key is for"),
        (("generate", "a", "--local", "--tls"), "--local: cannot be given together with --tls, --ca and --cert"),
    ],
)
async def test_what_cannot_be_is_bad_input_that_names_the_option(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    files = Files(tmp_path)
    places = {"NO-PEM": files.put("no.pem", b"no certificate"), "ME": files.put("me.crt", issued("me").chain)}
    said = await headrace(*(places.get(each, each) for each in arguments))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: {told}"), said

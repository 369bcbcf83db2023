"""Who signed a request, and what of it is read before that is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.requests import Request

from doors.http.bedrock.room import BedrockRoom
from doors.http.room import Authenticating
from service.identity.principal import NOBODY, Caller, Means, Principal, Unauthenticated
from tests.core import core
from tests.unit.doors.http.fake_edge import services
from tests.unit.doors.http.fake_jobs import FakeJobDesk

ACME = Principal(tenant="acme", subject="AKEY", means=Means.SIGNATURE)
URL = "http://headrace.test/async-invoke"


class OneKey:
    """See `service.identity.principal.Authority`."""

    def __init__(self, principal: Principal = ACME, secrets: Sequence[str] = ("secret",)) -> None:
        self._principal = principal
        self._secrets = secrets

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        if self._principal is not NOBODY and access_key != "AKEY":
            raise Unauthenticated("the access key is not one of this server's")
        return self._principal, self._secrets

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        raise AssertionError("signatures only")

    async def without_secret(self, caller: Caller) -> Principal:
        raise AssertionError("signatures only")

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        raise AssertionError("signatures only")

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        raise AssertionError("signatures only")


class Body:
    """Counts how often it is read."""

    def __init__(self, content: bytes = b"{}") -> None:
        self._content = content
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return self._content


def signed(access_key: str = "AKEY", secret: str = "secret", body: bytes = b"{}") -> Request:  # noqa: S107 - of this test alone
    request = AWSRequest("POST", URL, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(access_key, secret), "bedrock", "us-east-1").add_auth(request)
    headers = [(b"host", b"headrace.test"), *((name.lower().encode(), value.encode()) for name, value in request.headers.items())]
    return _request(headers)


def _request(headers: list[tuple[bytes, bytes]]) -> Request:
    path = b"/async-invoke"
    return Request({"type": "http", "method": "POST", "path": path.decode(), "raw_path": path, "query_string": b"", "headers": headers})


async def who(request: Request, authority: OneKey, body: Body, tmp_path: Path, late_s: float = 0.0) -> Principal | None:
    async with core() as made:
        room = BedrockRoom(services(made, FakeJobDesk(made.intake, tmp_path)), now=lambda: datetime.now(UTC).timestamp() + late_s)
        assert isinstance(room, Authenticating)
        return await room.authenticate(request, body.read, authority, Caller())


async def test_whoever_signed_is_the_caller(tmp_path: Path) -> None:
    body = Body()
    assert await who(signed(), OneKey(), body, tmp_path) is ACME
    assert body.reads == 1


async def test_another_secret_or_another_body_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated):
        await who(signed(secret="guess"), OneKey(), Body(), tmp_path)  # noqa: S106
    with pytest.raises(Unauthenticated):
        await who(signed(), OneKey(), Body(b"{} "), tmp_path)
    with pytest.raises(Unauthenticated):
        await who(signed(), OneKey(secrets=()), Body(), tmp_path)


async def test_the_body_of_a_key_that_is_not_known_is_not_read(tmp_path: Path) -> None:
    body = Body()
    with pytest.raises(Unauthenticated):
        await who(signed("OTHER"), OneKey(), body, tmp_path)
    assert body.reads == 0


async def test_a_server_without_keys_takes_any_signature(tmp_path: Path) -> None:
    assert await who(signed("ANY", "dummy"), OneKey(NOBODY, ()), Body(), tmp_path) is NOBODY
    assert await who(signed("ANY", "dummy"), OneKey(NOBODY, ()), Body(), tmp_path, late_s=86_400.0) is NOBODY


async def test_an_old_signature_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    body = Body()
    with pytest.raises(Unauthenticated, match="x-amz-date"):
        await who(signed(), OneKey(), body, tmp_path, late_s=1000.0)
    assert body.reads == 0


async def test_a_large_body_is_hashed_all_the_same(tmp_path: Path) -> None:
    content = bytes(200_000)
    assert await who(signed(body=content), OneKey(), Body(content), tmp_path) is ACME


async def test_a_bearer_token_is_left_to_the_edge(tmp_path: Path) -> None:
    assert await who(_request([(b"host", b"headrace.test"), (b"authorization", b"Bearer key")]), OneKey(), Body(), tmp_path) is None

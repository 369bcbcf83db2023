"""Tokens of an issuer: what is asked of them, and how often its keys are read."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from model_core.errors import StageUnavailable
from service.identity.jwks import IssuerKeys, fetched_from, key_set
from service.identity.principal import Means, Principal
from service.identity.tokens import MAX_TOKEN_CHARS, IssuerPolicy, IssuerTokens
from tests.fakes import ManualClock
from tests.identities import AUDIENCE, ISSUER, NOW, Provider, Wall

POLICY = IssuerPolicy(issuer=ISSUER, audiences=("other", AUDIENCE), algorithms=("ES256",), models_claim="models")


class Issuer:
    def __init__(self, policy: IssuerPolicy = POLICY) -> None:
        self.provider, self.clock, self.wall = Provider(), ManualClock(), Wall()
        self.keys = IssuerKeys(self.provider.fetch, self.clock)
        self.tokens = IssuerTokens(policy, self.keys, 30.0, self.clock, self.wall)

    async def takes(self, token: str) -> bool:
        return await self.tokens.principal(token) is not None


async def test_a_sound_token_is_its_tenants() -> None:
    issuer = Issuer()
    told = Principal(tenant="studio", subject="user-7", means=Means.TOKEN, models=frozenset({"a", "b"}))
    assert await issuer.tokens.principal(issuer.provider.token(models=["a", "b"])) == told
    assert await issuer.tokens.principal(issuer.provider.token(models="a b")) == told
    assert await issuer.takes(issuer.provider.token(aud=["x", AUDIENCE]))
    none = await issuer.tokens.principal(issuer.provider.token())
    assert none is not None
    assert none.models == frozenset(), "a token without the claim may use no model"


async def test_without_a_claim_for_models_a_token_may_use_all() -> None:
    issuer = Issuer(IssuerPolicy(issuer=ISSUER, audiences=(AUDIENCE,), algorithms=("ES256",)))
    principal = await issuer.tokens.principal(issuer.provider.token(models=["a"]))
    assert principal is not None
    assert principal.models is None


@pytest.mark.parametrize("claim", [["films", 7, "trailers"], "films trailers"])
async def test_a_token_may_list_buckets_of_its_own(claim: object) -> None:
    issuer = Issuer(IssuerPolicy(issuer=ISSUER, audiences=(AUDIENCE,), algorithms=("ES256",), buckets_claim="buckets"))
    principal = await issuer.tokens.principal(issuer.provider.token(buckets=claim))
    assert principal is not None
    assert principal.buckets == frozenset({"films", "trailers"})
    nothing: tuple[dict[str, Any], ...] = ({}, {"buckets": {"films": True}})
    for claims in nothing:
        none = await issuer.tokens.principal(issuer.provider.token(**claims))
        assert none is not None
        assert none.buckets == frozenset()
    unread = await Issuer().tokens.principal(issuer.provider.token(buckets=claim))
    assert unread is None or unread.buckets == frozenset()


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://other.example.org"}, {"iss": None}, {"aud": "elsewhere"}, {"aud": None}, {"aud": []}, {"exp": NOW - 31},
     {"exp": None}, {"exp": "soon"}, {"exp": True}, {"nbf": NOW + 31}, {"iat": NOW + 31}, {"tenant": None}, {"tenant": ""},
     {"tenant": "a b"}, {"tenant": 7}, {"tenant": "x" * 65}, {"sub": None}, {"sub": 7}],
    ids=str,
)  # fmt: skip
async def test_a_claim_that_is_not_as_asked_for_refuses_the_token(claims: dict[str, Any]) -> None:
    issuer = Issuer()
    assert not await issuer.takes(issuer.provider.token(**claims))
    assert await issuer.takes(issuer.provider.token())


@pytest.mark.parametrize("claims", [{"exp": NOW - 29}, {"nbf": NOW + 29}])
async def test_clocks_may_differ_a_little(claims: dict[str, Any]) -> None:
    assert await (issuer := Issuer()).takes(issuer.provider.token(**claims))


async def test_only_the_algorithms_of_the_configuration_count() -> None:
    issuer = Issuer()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-7", "exp": NOW + 600, "tenant": "studio"}
    shared = jwt.encode({"alg": "HS256", "kid": "one"}, claims, OctKey.import_key(b"x" * 32), algorithms=["HS256"])
    other = jwt.encode({"alg": "RS256", "kid": "one"}, claims, RSAKey.generate_key(2048), algorithms=["RS256"])
    header, _, rest = issuer.provider.token().partition(".")
    unsigned = ["eyJhbGciOiJub25lIiwia2lkIjoib25lIn0." + rest.split(".")[0] + ".", header + "." + rest.split(".")[0] + "."]
    for token in (shared, other, *unsigned):
        assert not await issuer.takes(token)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "e30.e30.e30", "\u2603.\u2603.\u2603", "W10.W10.W10", "x" * (MAX_TOKEN_CHARS + 1), "eyJhbGciOjF9.e30."],
)
async def test_what_is_no_token_is_refused_without_a_look_at_the_issuer(token: str) -> None:
    issuer = Issuer()
    assert not await issuer.takes(token)
    assert issuer.provider.reads == 0


async def test_a_good_token_is_not_remembered_beyond_its_end() -> None:
    issuer = Issuer()
    token = issuer.provider.token(exp=NOW - 10)  # 20 s are left of the leeway
    assert await issuer.takes(token)
    issuer.wall.now += 21
    await issuer.clock.advance(19.0)
    assert await issuer.takes(token), "it is remembered"
    await issuer.clock.advance(1.0)
    assert not await issuer.takes(token)


async def test_an_unknown_key_has_the_keys_read_again_once_in_a_while() -> None:
    issuer = Issuer()
    assert await issuer.takes(issuer.provider.token())
    issuer.provider.add("two")
    fresh = issuer.provider.token("two")
    assert not await issuer.takes(fresh), "keys were read a moment ago"
    assert issuer.provider.reads == 1
    await issuer.clock.advance(30.0)
    assert await issuer.takes(fresh)
    issuer.provider.add("three")
    invented = [issuer.provider.token("three", {"kid": f"invented-{n}"}) for n in range(50)]
    for token in invented:
        assert not await issuer.takes(token)
    assert issuer.provider.reads == 2
    await issuer.clock.advance(30.0)
    for token in invented:
        assert not await issuer.takes(token)
    assert issuer.provider.reads == 3


async def test_keys_that_cannot_be_read_leave_the_old_ones_and_without_any_callers_wait() -> None:
    issuer = Issuer()
    issuer.provider.broken = True
    with pytest.raises(StageUnavailable):
        await issuer.takes(issuer.provider.token())
    issuer.provider.broken = False
    await issuer.clock.advance(30.0)
    assert await issuer.takes(issuer.provider.token())
    issuer.provider.broken = True
    await issuer.clock.advance(3600.0)
    assert await issuer.takes(issuer.provider.token())
    await issuer.clock.advance(31.0)
    assert await issuer.takes(issuer.provider.token(sub="user-8"))
    assert issuer.provider.reads >= 3


async def test_a_key_that_the_issuer_withdraws_is_forgotten_within_an_hour() -> None:
    issuer = Issuer()
    token = issuer.provider.token()
    assert await issuer.takes(token)
    issuer.provider.keys.clear()
    issuer.provider.add("two")
    await issuer.clock.advance(3600.0)
    assert await issuer.takes(token), "the keys are old, and are read again beside the call"
    async with asyncio.timeout(20):
        while await issuer.keys.key("one") is not None:  # noqa: ASYNC110 - what is watched has no event
            await asyncio.sleep(0.01)
    await issuer.clock.advance(31.0)
    assert not await issuer.takes(token)


def test_a_key_set_is_read_from_a_file_and_kinds_that_are_unknown_are_left_out(tmp_path: Path) -> None:
    known = Provider().keys["one"].as_dict(private=False)
    strange = [{"kty": "XYZ", "kid": "new"}, {"kty": "oct", "k": "AAAA"}, {**known, "use": "enc"}, {"kty": "EC"}, 7]
    (path := tmp_path / "keys.json").write_text(json.dumps({"keys": [known, *strange]}))
    [key] = key_set(fetched_from(str(path))())
    assert key.kid == "one"
    for text in ("", "[]", "{}", json.dumps({"keys": [{}] * 257})):
        with pytest.raises(ValueError, match=r"Expecting value|a JWK set must be"):
            key_set(text.encode())
    path.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(ValueError, match="must have at most 1048576 bytes"):
        fetched_from(str(path))()


class Served(BaseHTTPRequestHandler):
    """Answers with a set of keys, with too much, or with the way elsewhere."""

    def do_GET(self) -> None:
        body = b" " * (1024 * 1024 + 1) if self.path == "/large" else json.dumps({"keys": []}).encode()
        self.send_response(302 if self.path == "/moved" else 404 if self.path == "/none" else 200)
        self.send_header("Location", "/keys")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # a reader that has enough leaves
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(name="issuer_url")
def _issuer_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_key_set_is_read_from_a_url_which_must_not_lead_elsewhere(issuer_url: str) -> None:
    assert json.loads(fetched_from(f"{issuer_url}/keys")()) == {"keys": []}
    for path, told in (("moved", "302"), ("none", "404")):
        with pytest.raises(OSError, match=told):
            fetched_from(f"{issuer_url}/{path}")()
    with pytest.raises(ValueError, match="must have at most 1048576 bytes"):
        fetched_from(f"{issuer_url}/large")()
    with pytest.raises(OSError, match="refused"):
        fetched_from("http://127.0.0.1:9/keys")()

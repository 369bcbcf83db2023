"""The guard around every handler: who calls, what is said of errors, what is counted, and what must not be written down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from doors.http.credentials import HIDDEN, scrubbed
from doors.http.room import Credentials, Endpoint, HttpRequest
from model_core.errors import CapacityExceeded, StageUnavailable
from observability.context import SESSION_ID
from service.failures import Failure
from service.identity.principal import Caller, Forbidden, Means, Principal, QuotaExceeded, Unauthenticated
from tests.http_served import OPTIONS, OpenAuthority, http_serving

KEY = "key-of-acme-0123456789"
PROMPT = {"prompt": "a red circle", "seconds": 0.1}


class Keys(OpenAuthority):
    """Knows one key, and remembers whom it was asked about."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.callers: list[Caller] = []
        self.sessions: list[str] = []

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        self.callers.append(caller)
        self.sessions.append(SESSION_ID.get())
        if self.error is not None:
            raise self.error
        if presented != KEY:
            raise Unauthenticated("the key is not known")
        return Principal(tenant="acme", subject="key-1", means=Means.KEY)

    async def without_secret(self, caller: Caller) -> Principal:
        self.callers.append(caller)
        raise Unauthenticated("a key is needed")


class ToyRoom:
    """A room of a test's own."""

    name = "toy"

    def __init__(self, handler: Callable[[HttpRequest], Any], refuse: Callable[[Failure], Response] | None = None) -> None:
        self._handler = handler
        self._refuse = refuse

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(path="/toy/thing", method="GET", operation="see", handler=self._handler, credentials=Credentials.NONE),
            Endpoint(path="/toy/{name}/deep", method="POST", operation="do", handler=self._handler, credentials=Credentials.NONE),
        )

    def refuse(self, failure: Failure) -> Response:
        if self._refuse is not None:
            return self._refuse(failure)
        return JSONResponse({"toy": failure.kind.value, "message": failure.message}, 418)


def failing(error: Exception) -> ToyRoom:
    async def handler(request: HttpRequest) -> Response:
        raise error

    return ToyRoom(handler)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": f"Bearer {KEY}"}, ""),
        ({"authorization": f"bearer  {KEY}"}, ""),
        ({"authorization": KEY}, ""),
        ({"x-api-key": KEY}, ""),
        ({"api-key": KEY}, ""),
        ({"x-goog-api-key": KEY}, ""),
        ({}, f"?alt=json&key={KEY}"),
    ],
)
async def test_a_key_is_found_in_every_place(headers: dict[str, str], query: str) -> None:
    async with http_serving(authority=Keys()) as served:
        answer = await served.client.get(f"/v1/models{query}", headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"authorization": "Bearer"}, ""),
        ({"x-api-key": "wrong"}, ""),
        ({}, "?key=wrong"),
        ({"authorization": "Bearer wrong"}, ""),
    ],
)
async def test_nobody_gets_in_without_one(headers: dict[str, str], query: str) -> None:
    async with http_serving(authority=Keys()) as served:
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/stream"), ("GET", "/v1/jobs")):
            answer = await served.client.request(method, path + query, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await served.client.get(path)).status_code in (200, 503)
        assert served.metric("calls_total", rpc="own.stream", outcome="unauthenticated") == 1


async def test_a_body_is_not_read_for_a_caller_who_is_not_known() -> None:
    async with http_serving(authority=Keys(), options=replace(OPTIONS, max_held_bytes=1)) as served:
        answer = await served.client.post("/v1/stream", content=b" " * 1000)
        assert answer.status_code == 401


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "x-headrace-tenant", "origin"])
async def test_what_may_come_once_is_refused_when_it_comes_twice(name: str) -> None:
    async with http_serving() as served:
        answer = await served.client.get("/v1/models", headers=[(name, "a"), (name, "b")])
        assert answer.status_code == 400
        assert answer.json()["error"]["violations"] == [{"field": name, "description": "must be given at most once; got 2"}]


async def test_the_authority_hears_what_is_known_of_the_caller() -> None:
    keys = Keys()
    async with http_serving(authority=keys) as served:
        headers = {"x-api-key": KEY, "x-headrace-tenant": "acme", "origin": f"http://127.0.0.1:{served.port}"}
        assert (await served.client.get("/v1/models", headers=headers)).status_code == 200
    assert keys.callers == [Caller(address="127.0.0.1", claimed_tenant="acme", origin=f"http://127.0.0.1:{served.port}")]


async def test_the_next_request_on_a_connection_does_not_work_for_the_session_before() -> None:
    keys = Keys()
    async with http_serving(authority=keys) as served:
        for _ in range(3):
            await served.client.post("/v1/stream", json=PROMPT, headers={"x-api-key": KEY})
    assert keys.sessions == ["", "", ""]


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (StageUnavailable("away"), 503, {"retry-after": "2", "retry-after-ms": "2000"}),
        (CapacityExceeded("full", 0.25), 503, {"retry-after": "1", "retry-after-ms": "250"}),
        (Forbidden("not that"), 403, {}),
        (
            QuotaExceeded("slow down", limit="requests_per_minute", allowed=60, used=60, retry_after_s=7.5),
            429,
            {
                "retry-after": "8",
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "8",
            },
        ),
        (QuotaExceeded("all spent", limit="budget_seconds", allowed=100, used=100), 429, {}),
    ],
)
async def test_refusals_say_when_to_come_back(error: Exception, status: int, headers: dict[str, str]) -> None:
    async with http_serving(authority=Keys(error)) as served:
        answer = await served.client.get("/v1/models", headers={"x-api-key": KEY})
        assert answer.status_code == status
        assert headers.items() <= dict(answer.headers).items()
        for name in ("retry-after", "x-ratelimit-limit-requests"):
            assert (name in answer.headers) == (name in headers)


async def test_a_room_says_errors_in_its_own_words_and_a_defect_gets_no_further(caplog: pytest.LogCaptureFixture) -> None:
    async with http_serving(more_rooms=[failing(ValueError(f"a defect with {KEY}"))]) as served:
        answer = await served.client.get(f"/toy/thing?key={KEY}")
        assert answer.status_code == 418
        assert answer.json() == {"toy": "internal", "message": f"internal error; request id {answer.headers['x-request-id']}"}
        assert served.metric("calls_total", rpc="toy.see", outcome="internal") == 1
    assert "a defect with" in caplog.text
    assert KEY not in caplog.text


async def test_a_room_without_words_is_a_defect_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    def speechless(failure: Failure) -> Response:
        raise KeyError(failure.kind)

    async def handler(request: HttpRequest) -> Response:
        raise Forbidden("not that")

    async with http_serving(more_rooms=[ToyRoom(handler, speechless)]) as served:
        assert (await served.client.get("/toy/thing")).status_code == 500
    assert "toy has no words for Kind.FORBIDDEN" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "toy", "allow"),
    [
        ("GET", "/nothing", 404, False, None),
        ("GET", "/toy", 418, True, None),
        ("GET", "/toy/thing/more", 418, True, None),
        ("POST", "/toy/thing", 405, True, "GET, HEAD, OPTIONS"),
        ("GET", "/toy/x/deep", 405, True, "POST, OPTIONS"),
        ("PUT", "/v1/jobs", 405, False, "GET, HEAD, POST, OPTIONS"),
        ("GET", "/v1/stream/other", 404, False, None),
        ("GET", "/v1/../v1/models", 404, False, None),
        ("BREW", "/v1/models", 400, None, None),
    ],
)
async def test_what_is_not_there_is_said_by_the_nearest_room(
    method: str, path: str, status: int, toy: bool | None, allow: str | None
) -> None:
    async def handler(request: HttpRequest) -> Response:
        return Response("seen")

    async with http_serving(more_rooms=[ToyRoom(handler)]) as served:
        reader, writer = await served.connect()
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
    assert int(head.split()[1]) == status
    if toy is not None:
        assert ('"toy"' in body) == toy
    if allow is not None:
        assert f"allow: {allow}" in head


async def test_head_is_get_without_a_body_and_options_says_what_there_is() -> None:
    async with http_serving() as served:
        head = await served.client.head("/healthz")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "15")
        options = await served.client.options("/v1/jobs")
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
        assert "access-control-allow-origin" not in options.headers
        assert "access-control-allow-methods" not in options.headers


async def test_pages_of_other_sites_are_refused_unless_they_are_listed() -> None:
    page = "https://example.com"
    asks = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "authorization, x-grpc-web"}
    async with http_serving() as served:
        assert (await served.client.post("/v1/stream", json=PROMPT, headers={"origin": page})).status_code == 403
        assert (await served.client.post("/v1/stream", json=PROMPT, headers={"origin": "null"})).status_code == 403
        assert (await served.client.post("/v1/stream", json=PROMPT, headers={"origin": "http://["})).status_code == 403
        own = {"origin": f"http://127.0.0.1:{served.port}"}
        assert (await served.client.post("/v1/stream", json=PROMPT, headers=own)).status_code == 200
        assert "access-control-allow-methods" not in (await served.client.options("/v1/stream", headers=asks)).headers
    async with http_serving(options=replace(OPTIONS, origins=(page,))) as served:
        answer = await served.client.post("/v1/stream", json=PROMPT, headers={"origin": page})
        assert (answer.status_code, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (200, page, "origin")
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        preflight = await served.client.options("/v1/stream", headers=asks)
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert preflight.headers["access-control-allow-headers"] == "authorization, x-grpc-web"
        assert (await served.client.post("/v1/stream", json=PROMPT, headers={"origin": "https://other.com"})).status_code == 403


async def test_every_answer_has_an_id_and_a_date() -> None:
    async with http_serving() as served:
        ids = set()
        for path in ("/healthz", "/nothing", "/v1/models/none", "/openapi.json"):
            answer = await served.client.get(path)
            ids.add(answer.headers["x-request-id"])
            assert answer.headers["date"].endswith(" GMT")
            assert "server" not in answer.headers
        assert len(ids) == 4


PLANTED = {
    "authorization": {"authorization": "Bearer planted-secret-1"},
    "x-api-key": {"x-api-key": "planted-secret-2"},
    "api-key": {"api-key": "planted-secret-3"},
    "x-goog-api-key": {"x-goog-api-key": "planted-secret-4"},
}


@pytest.mark.parametrize("place", [*PLANTED, "query", "path"])
async def test_no_secret_is_written_down(place: str, caplog: pytest.LogCaptureFixture) -> None:
    async def echoes(request: HttpRequest) -> Response:
        raise ValueError(f"failed with {dict(request.raw.headers)} {request.raw.url}")

    with caplog.at_level(logging.DEBUG):
        async with http_serving(authority=Keys(), more_rooms=[ToyRoom(echoes)]) as served:
            secret = {"query": "planted-secret-5", "path": "hr_live_planted_secretsecret"}.get(place, "planted-secret")
            query = f"?key={secret}" if place == "query" else ""
            path = f"/toy/{secret}/deep" if place == "path" else "/toy/thing"
            method = "POST" if place == "path" else "GET"
            for target in (path, "/v1/models"):
                answer = await served.client.request(method, target + query, headers=PLANTED.get(place, {}))
                assert "planted" not in answer.text
            exposed = "".join(f"{sample}" for family in served.registry.collect() for sample in family.samples)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    written = "\n".join(record.getMessage() for record in ours)
    assert "/toy/" in written
    assert "planted" not in written
    assert "planted" not in exposed


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("hr_live_abc_def-ghi", "def-ghi"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("token eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln!", "c2ln"),
        ("AWS4-HMAC-SHA256 Credential=A/b, Signature=0123abcd", "0123abcd"),
        ("GET /x?a=1&key=abcdef&b=2", "abcdef"),
        ("whsec_c2VjcmV0", "c2VjcmV0"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, secret: str) -> None:
    assert secret not in scrubbed(text)
    assert HIDDEN in scrubbed(text)
    assert scrubbed("the key is not one of these") == "the key is not one of these"


async def test_health_is_of_the_process_and_readiness_of_the_stages() -> None:
    async def away() -> None:
        raise ConnectionError("no replica yet")

    async with http_serving(probes={"denoiser": away}) as served:
        await served.monitor.probe()
        assert (await served.client.get("/healthz")).json() == {"status": "ok"}
        ready = await served.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "stages": {"denoiser": {"serving": False, "present": False}}})
    async with http_serving() as served:
        await served.monitor.probe()
        assert (await served.client.get("/readyz")).status_code == 200
        served.monitor.stop_serving()
        assert (await served.client.get("/readyz")).status_code == 503
        await served.monitor.probe()
        assert (await served.client.get("/readyz")).status_code == 503

"""Signatures that botocore makes are taken, and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.http.bedrock import sigv4
from service.identity.principal import Unauthenticated

SECRET, OTHER = "the secret", "another secret"
HOST = "headrace.test:8080"
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Signed:
    """A request as it arrives, and when it was signed."""

    received: sigv4.Received
    authorization: sigv4.Authorization
    body: bytes
    at: float

    def check(self, *secrets: str) -> None:
        sigv4.check_terms(self.received, self.authorization, "bedrock", self.at)
        sigv4.verify(self.received, self.authorization, hashlib.sha256(self.body).hexdigest(), secrets or (SECRET,))


@dataclass(frozen=True)
class Sent:
    """A request before it is signed. `path` and `query` are not encoded yet."""

    method: str = "POST"
    path: tuple[str, ...] = ("async-invoke",)
    query: Pairs = ()
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    body: bytes = b'{"modelId": "m"}'

    def signed(self, service: str = "bedrock") -> Signed:
        """Signed and sent by botocore's own code."""
        url = f"http://{HOST}/{'/'.join(_encoded(segment) for segment in self.path)}"
        if self.query:
            url += "?" + "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in self.query)
        request = AWSRequest(self.method, url, headers=self.headers, data=self.body)
        SigV4Auth(Credentials("AKEY", SECRET), service, "eu-west-1").add_auth(request)
        prepared = request.prepare()
        headers = [(name.lower().encode(), _bytes(value)) for name, value in prepared.headers.items()]
        parts = urlsplit(prepared.url)
        received = sigv4.Received(
            self.method, parts.path.encode(), parts.query.encode(), [(b"host", HOST.encode()), *(h for h in headers if h[0] != b"host")]
        )
        authorization = sigv4.parse(received.values("authorization")[0].decode())
        assert authorization is not None
        time = datetime.strptime(received.values("x-amz-date")[0].decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return Signed(received, authorization, self.body, time.timestamp())


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
SENT = st.builds(
    Sent,
    method=st.sampled_from(("GET", "POST")),
    path=st.lists(TEXT.filter(lambda text: text.strip(".")), min_size=1, max_size=3).map(tuple),
    query=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    headers=st.dictionaries(
        st.from_regex(r"x-[a-z]{1,8}-[a-z]{1,8}", fullmatch=True), st.from_regex(r"[!-~]( {0,3}[!-~]){0,6}", fullmatch=True)
    ),
    body=st.binary(max_size=64),
)


@given(sent=SENT)
@settings(max_examples=60, deadline=None)
def test_what_botocore_signs_is_taken(sent: Sent) -> None:
    sent.signed().check()


def test_an_arn_in_the_path_is_signed_as_it_stands_there() -> None:
    signed = Sent(
        "GET", ("async-invoke", "arn:aws:bedrock:us-east-1:000000000000:async-invoke/abcdefgh0123"), headers={}, body=b""
    ).signed()
    assert signed.received.path.count(b"%2F") == 1
    signed.check()


@pytest.mark.parametrize(
    "change",
    [
        lambda signed: replace(signed, body=signed.body + b" "),
        lambda signed: replace(signed, received=replace(signed.received, method="PUT")),
        lambda signed: replace(signed, received=replace(signed.received, path=b"/async-invoke/")),
        lambda signed: replace(signed, received=replace(signed.received, query=b"maxResults=2")),
        lambda signed: replace(signed, received=_with_header(signed.received, b"content-type", b"text/plain")),
        lambda signed: replace(signed, received=_with_header(signed.received, b"host", b"elsewhere")),
        lambda signed: replace(signed, authorization=replace(signed.authorization, region="us-east-1")),
        lambda signed: replace(signed, authorization=replace(signed.authorization, signed_headers=("host",))),
        lambda signed: replace(signed, authorization=replace(signed.authorization, signature="0" * 64)),
    ],
)
def test_a_request_that_was_changed_on_its_way_is_refused(change: Callable[[Signed], Signed]) -> None:
    signed = Sent(query=(("maxResults", "1"),)).signed()
    signed.check()
    with pytest.raises(Unauthenticated, match="the signature must be made of this request"):
        change(signed).check()


def test_any_of_the_secrets_may_have_signed_and_no_other() -> None:
    signed = Sent().signed()
    signed.check(OTHER, SECRET)
    with pytest.raises(Unauthenticated):
        signed.check(OTHER)
    with pytest.raises(Unauthenticated):
        sigv4.verify(signed.received, signed.authorization, hashlib.sha256(signed.body).hexdigest(), ())


def test_a_digest_that_is_announced_must_be_the_bodys() -> None:
    body = b"{}"
    Sent(headers={"X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()}, body=body).signed().check()
    with pytest.raises(Unauthenticated):
        Sent(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}, body=body).signed().check()


@pytest.mark.parametrize("apart", [-901, 901])
def test_a_signature_of_another_time_is_refused_with_the_distance(apart: int) -> None:
    signed = Sent().signed()
    replace(signed, at=signed.at + apart - (1 if apart > 0 else -1)).check()
    with pytest.raises(Unauthenticated, match=r"x-amz-date: must be within 900 s of this server's clock; got 901 s"):
        replace(signed, at=signed.at + apart).check()


def test_the_day_of_the_credential_is_that_of_the_date() -> None:
    signed = Sent().signed()
    with pytest.raises(Unauthenticated, match="must be of the day of x-amz-date"):
        replace(signed, authorization=replace(signed.authorization, day="20200101")).check()


def test_a_signature_for_another_service_is_refused() -> None:
    with pytest.raises(Unauthenticated, match="must be for the service bedrock; got s3"):
        Sent().signed("s3").check()


def test_the_host_must_be_signed() -> None:
    signed = Sent().signed()
    with pytest.raises(Unauthenticated, match="SignedHeaders must contain host"):
        replace(signed, authorization=replace(signed.authorization, signed_headers=("x-amz-date",))).check()


@pytest.mark.parametrize("dates", [(), (b"yesterday",), (b"20260101T000000Z", b"20260101T000000Z")])
def test_the_date_must_be_there_once_and_be_one(dates: tuple[bytes, ...]) -> None:
    signed = Sent().signed()
    others = [header for header in signed.received.headers if header[0] != b"x-amz-date"]
    received = replace(signed.received, headers=[*others, *((b"x-amz-date", date) for date in dates)])
    with pytest.raises(Unauthenticated, match="x-amz-date: must be given once"):
        replace(signed, received=received).check()


@pytest.mark.parametrize("header", ["", "Bearer key", "AWS4-ECDSA-P256-SHA256 Credential=a/b"])
def test_other_credentials_are_left_to_others(header: str) -> None:
    assert sigv4.parse(header) is None


@pytest.mark.parametrize(
    "header",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=AKEY/20260101/r/bedrock/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential=AKEY/2026/r/bedrock/aws4_request, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=AKEY/20260101/r/bedrock/aws4_request, SignedHeaders=host, Signature=" + "x" * 64,
    ],
)
def test_a_header_that_is_not_well_formed_is_refused_with_its_form(header: str) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: must be AWS4-HMAC-SHA256 with"):
        sigv4.parse(header)


def _with_header(received: sigv4.Received, name: bytes, value: bytes) -> sigv4.Received:
    return replace(received, headers=[(header, value if header == name else old) for header, old in received.headers])

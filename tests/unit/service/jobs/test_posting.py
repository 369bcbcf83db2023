"""Where this server posts: to public addresses, and to no other unless it is told so. No redirect is followed."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.jobs.webhooks.posting import Post, Target, TargetPolicy, TargetRefused

PUBLIC = TargetPolicy()
OWN = TargetPolicy((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.1.0.0/16")))


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path says, and writes down what came."""

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        self.server.got.append((self.path, dict(self.headers), self.rfile.read(size)))  # type: ignore[attr-defined]
        status = int(self.path.rpartition("/")[2].partition("?")[0])
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", "/200")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library calls it
        """To nobody."""


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    got: list[tuple[str, dict[str, str], bytes]] = []
    server.got = got  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",  # noqa: S104
        "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001::1",
    ],
)  # fmt: skip
def test_addresses_that_only_this_server_reaches_are_refused(address: str) -> None:
    with pytest.raises(TargetRefused, match="not a public one"):
        PUBLIC.check(ipaddress.ip_address(address), "https")


def test_public_addresses_by_https_alone_and_others_where_they_are_allowed() -> None:
    for address in ("93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34"):
        PUBLIC.check(ipaddress.ip_address(address), "https")
        with pytest.raises(TargetRefused, match="https://"):
            PUBLIC.check(ipaddress.ip_address(address), "http")
    OWN.check(ipaddress.ip_address("10.1.2.3"), "https")
    OWN.check(ipaddress.ip_address("127.0.0.1"), "http")
    with pytest.raises(TargetRefused, match="https://"):
        OWN.check(ipaddress.ip_address("10.1.2.3"), "http")
    with pytest.raises(TargetRefused):
        OWN.check(ipaddress.ip_address("10.2.0.1"), "https")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a/b", "https:///path", "https://user:pass@host/", "https://host:port/", "https://a b/", "https://host/\r\nx: y", "//host"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        Target.of(url)


def test_addresses_are_taken_apart() -> None:
    assert Target.of("https://Host.example:8443/a/b?c=d#e") == Target("https", "host.example", 8443, "/a/b?c=d")
    assert Target.of("http://[::1]") == Target("http", "::1", 80, "/")


def test_a_post_brings_its_body_and_headers_and_reads_the_status() -> None:
    with receiver() as (url, got):
        assert Post(f"{url}/200?a=b", {"x-a": "1"}, b"body", OWN, 5.0).send() == 200
        assert Post(f"{url}/302", {}, b"body", OWN, 5.0).send() == 302  # and goes nowhere
        assert Post(f"{url}/500", {}, b"body", OWN, 5.0).send() == 500
    assert [path for path, _, _ in got] == ["/200?a=b", "/302", "/500"]
    assert (got[0][1]["x-a"], got[0][2]) == ("1", b"body")
    with receiver() as (url, got), pytest.raises(TargetRefused):
        Post(f"{url}/200", {}, b"body", PUBLIC, 5.0).send()
    assert got == []


def test_a_name_with_one_bad_address_is_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(TargetRefused):
        Post("https://two.example/", {}, b"", PUBLIC, 1.0).send()


class Silent:
    """A host with so many addresses, at which nobody answers: each connection takes the time that it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, addresses: int) -> None:
        self.at = 0.0
        self.tried: list[str] = []
        self.then: Callable[[], None] = lambda: None
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"93.184.216.{number}", 443)) for number in range(addresses)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        silent = self

        def connect(made: socket.socket, where: tuple[str, int]) -> None:
            silent.tried.append(where[0])
            silent.at += made.gettimeout() or 0.0
            silent.then()
            raise TimeoutError("timed out")

        monkeypatch.setattr(socket.socket, "connect", connect)

    def now(self) -> float:
        return self.at


def test_a_name_with_many_addresses_takes_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent(monkeypatch, addresses=100)
    with pytest.raises(TimeoutError):
        Post("https://many.example/", {}, b"", PUBLIC, 15.0, silent.now).send()
    assert silent.tried == [f"93.184.216.{number}" for number in range(4)]
    assert silent.at == pytest.approx(15.0)


def test_a_slow_look_up_leaves_no_time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent(monkeypatch, addresses=2)
    moments = iter([0.0, 15.0])
    with pytest.raises(TimeoutError):
        Post("https://slow.example/", {}, b"", PUBLIC, 15.0, lambda: next(moments)).send()
    assert silent.tried == []


def test_one_that_is_ended_tries_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent(monkeypatch, addresses=3)
    post = Post("https://three.example/", {}, b"", PUBLIC, 15.0, silent.now)
    silent.then = post.abort
    with pytest.raises(TimeoutError, match="the time is over"):
        post.send()
    assert silent.tried == ["93.184.216.0"]


def test_one_that_was_ended_before_it_began_connects_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent(monkeypatch, addresses=3)
    post = Post("https://three.example/", {}, b"", PUBLIC, 15.0, silent.now)
    post.abort()
    with pytest.raises(TimeoutError, match="the time is over"):
        post.send()
    assert silent.tried == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_one_that_does_not_answer_can_be_ended_from_outside(scheme: str) -> None:
    """With TLS, while the other side keeps it waiting for its part of the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        post = Post(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", {}, b"", OWN, 3600.0)
        failed: list[OSError] = []

        def send() -> None:
            try:
                post.send()
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        accepted, _ = silent.accept()
        accepted.recv(1024)
        post.abort()
        thread.join(timeout=200)
        ended = not thread.is_alive()
        accepted.close()
        thread.join()
    assert ended
    assert len(failed) == 1

"""An address that names no server is refused, in gRPC's forms: gRPC would take a port modulo 65,536."""

from __future__ import annotations

import pytest

from headrace.cli import app
from headrace.cli.console import EXIT_BAD_INPUT, conclude
from headrace.client import HeadraceClient
from headrace.target import problem

GOOD = [
    "127.0.0.1:1", "localhost:65535", "[::1]:50051", "doors.example:443", "ipv4:127.0.0.1:1,127.0.0.1:2", "ipv6:[::1]:1", "dns:h:1",
    "dns:///doors.example:1", "dns://192.0.2.1:53/doors.example:1", "unix:/run/headrace", "unix-abstract:name", "xds:///service",
]  # fmt: skip
BAD = [
    "127.0.0.1:99999", "127.0.0.1:65536", "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1:1.5", "127.0.0.1:http", "127.0.0.1:",
    "127.0.0.1", "localhost", ":50051", "", " :1", "a b:1", "h: 1", "h:1 ", "::1", "::1:50051", "[::1]", "[::1]50051", "[::1]:0", "[]:1",
    "h:\u0663", "h:" + "1" * 5000, "ipv4:127.0.0.1:1,127.0.0.1:99999", "dns:///doors.example", "dns:///doors.example:99999", "http://h:99999",
]  # fmt: skip


@pytest.mark.parametrize("address", GOOD)
def test_an_address_in_any_form_that_grpc_takes(address: str) -> None:
    assert problem(address) is None


@pytest.mark.parametrize("address", BAD)
async def test_an_address_that_names_no_server(address: str) -> None:
    told = f"must be HOST:PORT, an IPv6 address in brackets, and a port from 1 to 65535; got {address[:256]!a}"
    assert problem(address) == told
    with pytest.raises(ValueError, match=r"^address must be HOST:PORT"):
        HeadraceClient(address)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("generate", "a"), "--address"),
        (("generate", "a", "--mode", "unary"), "--address"),
        (("live", "a"), "--address"),
        (("models",), "--address"),
        (("status",), "--address"),
        (("demo",), "--address"),
        (("top", "--once"), "--metrics"),
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1:99999", "::1", "http://127.0.0.1:9464"])
def test_a_command_names_the_option(command: tuple[str, ...], option: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(lambda: app([*command, option, address], standalone_mode=False)) == EXIT_BAD_INPUT
    told = f"error: {option}: must be HOST:PORT, an IPv6 address in brackets, and a port from 1 to 65535; got {address!r}\n"
    assert capsys.readouterr() == ("", told)

"""Where several front doors stand behind an address and one has stopped, the client gets through to another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.client import Connecting, HeadraceClient, Unavailable
from headrace.target import is_loopback
from headrace.v1 import video_pb2 as pb
from tests.served import serving

QUICK = Connecting(attempt_s=0.5, give_up_after_s=60.0)


@contextmanager
def silent(port: int = 0) -> Iterator[int]:
    """A front door that has stopped: the kernel takes its connections, and nobody answers. With `port`, beside one that serves there."""
    # The same kind of socket as gRPC's: the kernel shares a port only between equal ones.
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("::ffff:127.0.0.1", port))
        listener.listen(64)
        yield listener.getsockname()[1]


async def test_a_door_that_has_stopped_on_a_shared_port_fails_no_call() -> None:
    async with serving() as served:
        with silent(int(served.address.rpartition(":")[2])):

            async def call() -> int:
                async with HeadraceClient(served.address, connecting=QUICK) as client:
                    return len(await client.list_models(timeout_s=None))

            assert await asyncio.gather(*(call() for _ in range(8))) == [1] * 8


async def test_all_kinds_of_calls_try_again() -> None:
    async with serving() as served:
        with silent(int(served.address.rpartition(":")[2])):

            async def stream() -> int:
                async with HeadraceClient(served.address, connecting=QUICK) as client:
                    return sum([e.frame_count async for e in client.stream("a circle", seconds=0.5) if isinstance(e, pb.Frames)])

            async def live() -> int:
                async with HeadraceClient(served.address, connecting=QUICK) as client, client.live("a circle", seconds=0.5) as session:
                    return sum([e.frame_count async for e in session if isinstance(e, pb.Frames)])

            async def generate() -> int:
                async with HeadraceClient(served.address, connecting=QUICK) as client:
                    return (await client.generate("a circle", seconds=0.5)).ended.usage.frames_sent

            kinds = (stream, live, generate)
            assert await asyncio.gather(*(kind() for kind in kinds * 2)) == [12] * 6


async def test_of_two_addresses_the_one_that_answers_is_taken() -> None:
    async with serving() as served:
        with silent() as stopped:
            address = f"ipv4:127.0.0.1:{stopped},{served.address}"
            async with HeadraceClient(address, connecting=QUICK) as client:
                assert await client.list_models(timeout_s=None)


async def test_clients_spread_over_several_addresses() -> None:
    async with serving() as one, serving() as two:
        for _ in range(24):  # all meet at one with a chance of one in eight million
            async with HeadraceClient(f"ipv4:{one.address},{two.address}") as client:
                await client.list_models(timeout_s=None)
        calls = [served.metric("calls_total", rpc="ListModels", outcome="completed") for served in (one, two)]
        assert sum(calls) == 24
        assert min(calls) > 0


async def test_a_server_that_is_not_there_is_told_at_once_and_a_silent_one_after_a_while() -> None:
    with silent() as stopped:
        async with HeadraceClient(f"127.0.0.1:{stopped}", connecting=Connecting(0.1, 0.3)) as client:
            with pytest.raises(Unavailable, match="timed out"):
                await client.list_models(timeout_s=None)
    async with HeadraceClient(f"127.0.0.1:{stopped}", connecting=Connecting(600.0, 600.0)) as client:
        with pytest.raises(Unavailable, match="refused"):
            await client.list_models(timeout_s=None)


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as proxy:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        async with serving() as served:
            for address in (served.address, served.address.replace("127.0.0.1", "localhost")):
                async with HeadraceClient(address, connecting=QUICK) as client:
                    assert await client.list_models(timeout_s=None)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50051", True), ("localhost:50051", True), ("[::1]:50051", True), ("::1", True), ("127.9.9.9:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True), ("ipv6:[::1]:1", True), ("dns:///localhost:1", True), ("unix:/run/headrace", True),
        ("192.0.2.1:50051", False), ("doors.example:50051", False), ("dns:///doors.example:1", False), ("[2001:db8::1]:1", False),
        ("ipv4:127.0.0.1:1,192.0.2.1:2", False), ("0.0.0.0:1", True), ("[::]:1", True), ("", False),
    ],
)  # fmt: skip
def test_which_addresses_are_this_machine(address: str, local: bool) -> None:
    assert is_loopback(address) == local

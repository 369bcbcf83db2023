"""The audit log's entry of a session says from where it was asked for, and by which id the server's log names the call."""

from __future__ import annotations

import grpc.aio

from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from service.ledger.interface import AuditEntry
from tests.fakes import eventually
from tests.http_served import http_serving
from tests.served import read_all, serving, stream_call
from tests.triton import client as triton_client
from tests.triton import prompt, responses


class Log:
    """An audit log that is a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def note(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


async def test_over_grpc_each_call_has_an_id_of_its_own() -> None:
    log = Log()
    async with serving(audit=log) as served:
        async with HeadraceClient(served.address) as client:
            await client.generate("a red circle", seconds=0.2)
        async with grpc.aio.insecure_channel(served.address) as channel:
            await read_all(stream_call(channel, pb.StreamRequest(spec=pb.VideoSpec(prompt="a red circle", seconds=0.2))))
        await eventually(lambda: len(log.entries) == 2)
    assert [entry.address for entry in log.entries] == ["127.0.0.1"] * 2
    first, second = (entry.request_id for entry in log.entries)
    assert first.startswith("call-")
    assert second.startswith("call-")
    assert first != second


async def test_a_room_of_the_grpc_port_says_it_too() -> None:
    log = Log()
    async with serving(audit=log) as served, triton_client(served) as here:
        call = here.stream()
        await call.write(prompt("a red circle", 0.2))
        await call.done_writing()
        assert await responses(call)
        await eventually(lambda: len(log.entries) == 1)
    [entry] = log.entries
    assert entry.address == "127.0.0.1"
    assert entry.request_id.startswith("call-")


async def test_over_http_the_id_is_the_one_that_the_caller_is_told() -> None:
    log = Log()
    async with http_serving(audit=log) as served:
        answer = await served.client.post("/v1/stream", json={"prompt": "a red circle", "seconds": 0.2})
        assert answer.status_code == 200
        await eventually(lambda: len(log.entries) == 1)
    [entry] = log.entries
    assert (entry.address, entry.request_id) == ("127.0.0.1", answer.headers["x-request-id"])

"""Whichever door turns a caller away because nobody knows it, the audit log says so, and holds nothing of the credential."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
import pytest

from doors.grpc.oasis import a2v_pb2
from doors.grpc.oasis.room import SERVICE_NAME as OASIS
from doors.grpc.triton import kserve_pb2
from doors.grpc.triton.room import SERVICE_NAME as TRITON
from headrace.client import HeadraceClient, Refused
from service.identity.open_door import OpenDoor
from service.identity.peers import Proxies
from service.identity.principal import Caller, Principal, Unauthenticated
from service.ledger.denials import Denials
from service.ledger.interface import AuditEntry, Outcome
from tests.http_served import http_serving
from tests.served import serving

SECRET = "a-secret-that-must-not-be-seen"  # noqa: S105 - no secret of anybody's


class Nobody(OpenDoor):
    """Knows no credential."""

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        raise Unauthenticated("a valid credential is required")

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        raise Unauthenticated("a valid credential is required")

    async def without_secret(self, caller: Caller) -> Principal:
        raise Unauthenticated("a valid credential is required")


class Log:
    """An audit log that is a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.denials = Denials(self, lambda: 0.0)

    def note(self, entry: AuditEntry) -> None:
        self.entries.append(entry)

    def told(self) -> list[tuple[str, object, str]]:
        assert SECRET not in repr(self.entries)
        assert all(entry.outcome is Outcome.DENIED for entry in self.entries)
        return [(entry.operation, entry.detail["door"], entry.address) for entry in self.entries]


def nobody() -> Nobody:
    return Nobody(Proxies(), lambda: 0.0)


async def test_grpc_and_its_rooms() -> None:
    log = Log()
    async with serving(authority=nobody(), denials=log.denials) as served:
        async with HeadraceClient(served.address, key=SECRET) as client:
            with pytest.raises(Refused):
                await client.list_models()
        async with grpc.aio.insecure_channel(served.address) as channel:
            metadata = (("x-api-key", SECRET),)
            live = channel.unary_unary(
                f"/{TRITON}/ServerLive", kserve_pb2.ServerLiveRequest.SerializeToString, kserve_pb2.ServerLiveResponse.FromString
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await live(kserve_pb2.ServerLiveRequest(), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            initialize = channel.unary_unary(
                f"/{OASIS}/Initialize", a2v_pb2.InitializeRequest.SerializeToString, a2v_pb2.InitializeResponse.FromString
            )
            answer = await initialize(a2v_pb2.InitializeRequest(api_key=SECRET))
            assert answer.error.code == a2v_pb2.ERROR_CODE_INVALID_API_KEY
            assert SECRET not in answer.error.message
    assert log.told() == [("authenticate", name, "127.0.0.1") for name in ("headrace.v1.VideoService", TRITON, OASIS)]


async def test_http() -> None:
    log = Log()
    async with http_serving(authority=nobody(), denials=log.denials) as served:
        answer = await served.client.get("/v1/models", headers={"Authorization": f"Bearer {SECRET}"})
        assert answer.status_code == 401
    assert log.told() == [("authenticate", "own", "127.0.0.1")]
    assert log.entries[0].request_id == answer.headers["x-request-id"]

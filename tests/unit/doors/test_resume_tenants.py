"""A resume token is of use to the session's tenant, and to nobody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.v1 import video_pb2 as pb
from model_core.session_log import SessionRecord
from tests.fakes import eventually
from tests.served import details_of, read_all, stream_call
from tests.stores import FakeStore
from tests.unit.doors.test_resume import SLOW_S, cut, door, frames, refused, resume, spec, whole


def said(error: grpc.aio.AioRpcError) -> tuple[Any, ...]:
    return error.code(), error.details(), details_of(error)


async def test_another_tenant_cannot_go_on_with_a_session_and_does_not_learn_that_there_is_one() -> None:
    store = FakeStore()
    request = pb.StreamRequest(spec=spec(), codec=pb.CODEC_RAW_RGB)
    async with door(store, chunk_s=SLOW_S) as served, grpc.aio.insecure_channel(served.address) as channel:
        unknown = await refused(served, resume("guessed"))
        call = stream_call(channel, request, "studio")
        token = (await call.read()).started.resume_token
        got = frames([await call.read() for _ in range(3)])
        await eventually(lambda: bool(store.puts))
        for tenant in ("", "other"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_all(stream_call(channel, resume(token), tenant))
            assert said(caught.value) == said(unknown)
        got += frames([await call.read()])
        call.cancel()
        await served.nothing_left()
        got += frames(await read_all(stream_call(channel, resume(token, len(got)), "studio")))
    assert got == await whole()


async def test_a_session_that_was_recorded_without_its_tenant_is_whoever_has_the_token() -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as served, cut(served, 3) as (token, got):
        record = replace(SessionRecord.from_bytes(store.puts[-1]), tenant=None)
        await store.claim(token, "a front door of the version before")
        await store.put(token, "a front door of the version before", record.to_bytes(), 60.0)
        async with grpc.aio.insecure_channel(served.address) as channel:
            rest = frames(await read_all(stream_call(channel, resume(token, len(got)), "studio")))
    assert got + rest == await whole()

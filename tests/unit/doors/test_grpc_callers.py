"""Who calls over gRPC: keys, tokens, tenants of proxies, quotas, and what callers learn who are refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest

from doors.grpc.callers import address_of, named_tenant, secret_of
from headrace.client import BadRequest, Busy, ClientError, HeadraceClient, Refused, Unavailable
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest
from service.identity import limits
from service.identity.quotas import TenantQuotas
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.identities import MASTER, Kept, kept
from tests.served import Served, serving


@asynccontextmanager
async def kept_door(folder: Path, stages: FakeStages | None = None) -> AsyncGenerator[tuple[Served, Kept], None]:
    async with kept(folder) as door:
        quotas = TenantQuotas(door.database, 30.0, door.clock, door.wall)
        async with serving(stages, authority=door.authority, quotas=quotas) as served:
            yield served, door
        await quotas.aclose()


def wrong_keys(door: Kept) -> list[str]:
    return ["", door.ring.new().key, "hr_live_x", "hr_token_x", "a.b.c", "x" * 5000]


async def test_calls_with_a_key_are_served_and_without_one_refused(tmp_path: Path) -> None:
    async with kept_door(tmp_path) as (served, door):
        secret = await door.key()
        async with HeadraceClient(served.address, key=secret.key) as client:
            assert await client.list_models()
            assert (await client.generate("a circle", seconds=0.1)).mp4
            async with client.live("a circle", seconds=0.1) as session:
                assert isinstance([event async for event in session][-1], pb.Ended)
        for wrong in wrong_keys(door):
            async with HeadraceClient(served.address, key=wrong) as client:
                with pytest.raises(Refused, match="a valid credential is required") as caught:
                    await client.list_models()
                assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
                assert wrong == "" or wrong not in str(caught.value)
                with pytest.raises(Refused):
                    async with aclosing(client.stream("a circle", seconds=0.1)) as events:
                        [event async for event in events]
        assert served.metric("calls_total", rpc="ListModels", outcome="unauthenticated") == len(wrong_keys(door))
        assert served.stages.encoder.calls == 2
        assert await served.client.health() == "SERVING", "load balancers have no key"


async def test_a_key_is_taken_from_either_place_and_two_are_bad_input(tmp_path: Path) -> None:
    async with kept_door(tmp_path) as (served, door):
        one, two = await door.key(), await door.key()
        for metadata in ((("x-api-key", one.key),), (("authorization", f"bearer {one.key}"),), (("authorization", one.key),)):
            async with HeadraceClient(served.address, metadata=metadata) as client:
                assert await client.list_models()
        async with HeadraceClient(served.address, key=one.key, metadata=(("x-api-key", one.key),)) as client:
            assert await client.list_models()
        async with HeadraceClient(served.address, key=one.key, metadata=(("x-api-key", two.key),)) as client:
            with pytest.raises(BadRequest, match="authorization: must be the only credential in the metadata") as caught:
                await client.list_models()
            assert one.key not in str(caught.value)


async def test_a_key_for_other_models_is_forbidden(tmp_path: Path) -> None:
    async with kept_door(tmp_path) as (served, door):
        secret = await door.key(models=["another"])
        async with HeadraceClient(served.address, key=secret.key) as client:
            with pytest.raises(Refused, match="model must be one of another with this credential; got") as caught:
                await client.generate("a circle", seconds=0.1)
            assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert served.metric("calls_total", rpc="Generate", outcome="forbidden") == 1
        assert served.stages.encoder.calls == 0


async def test_a_client_token_bounds_the_length(tmp_path: Path) -> None:
    async with kept_door(tmp_path) as (served, door):
        secret = await door.key()
        principal = await door.authority.by_secret(secret.key, caller=None)  # type: ignore[arg-type]  # a key needs none
        made, _ = await door.authority.client_token(principal, seconds=60.0, models=None, max_seconds=0.5, origin="")
        async with HeadraceClient(served.address, key=made) as client:
            assert (await client.generate("a circle", seconds=0.5)).mp4
            for seconds in (1.0, 0.0):
                with pytest.raises(Refused, match=r"seconds must be at most 0\.5 with this credential; got (1|no end)"):
                    async with client.live("a circle", seconds=seconds) as session:
                        [event async for event in session]


async def test_a_tenant_header_of_a_stranger_does_not_count(tmp_path: Path) -> None:
    async with kept_door(tmp_path) as (served, door):
        secret = await door.key("studio")
        async with HeadraceClient(served.address, tenant="small") as client:
            with pytest.raises(Refused):
                await client.list_models()
        async with HeadraceClient(served.address, tenant="small", key=secret.key) as client:
            assert await client.list_models()


async def test_a_spent_limit_is_told_with_its_name_and_value(tmp_path: Path) -> None:
    stages = FakeStages(FakeDenoiser(FakeStages().config, delay_s=0.005))
    async with kept_door(tmp_path, stages) as (served, door):
        secret = await door.key()
        set_limits = partial(limits.set_limits, tenant="studio", changes={"parallel_sessions": 1, "budget_seconds": 30.0})
        await door.database.run(set_limits)
        async with HeadraceClient(served.address, key=secret.key) as client, AsyncExitStack() as stack:
            session = await stack.enter_async_context(client.live("a circle", seconds=20.0))
            async for event in session:
                if isinstance(event, pb.Frames):
                    break
            with pytest.raises(Busy, match="parallel_sessions of tenant studio is 1; got 1 more than the 1 that it has") as caught:
                await client.generate("another", seconds=0.1)
            assert caught.value.retry_after_s == 5.0
        await served.nothing_left()
        async with HeadraceClient(served.address, key=secret.key) as client:
            with pytest.raises(ClientError, match="budget_seconds of tenant studio is 30; got a request for 31 s of video"):
                await client.generate("too long", seconds=31.0)
            assert (await client.generate("a circle", seconds=1.0)).mp4
        spent = partial(limits.limits_of, tenant="studio")
        async with asyncio.timeout(20):
            while (await door.database.run(spent, write=False)).spent_seconds < 1.0:  # noqa: ASYNC110 - it is settled beside the call
                await asyncio.sleep(0.01)
        assert served.metric("calls_total", rpc="Generate", outcome="quota") == 2


async def test_a_database_that_is_away_is_unavailable_and_harms_no_running_session(tmp_path: Path) -> None:
    async with kept_door(tmp_path) as (served, door):
        known, new = await door.key(), await door.key()
        async with HeadraceClient(served.address, key=known.key) as client:
            await client.list_models()
            await client.generate("a circle", seconds=0.1)
            door.database.away = True
            assert (await client.generate("a circle", seconds=0.1)).mp4
        async with HeadraceClient(served.address, key=new.key) as client:
            with pytest.raises(Unavailable, match="the database does not answer"):
                await client.list_models()


async def test_no_secret_gets_into_logs_metrics_or_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with kept_door(tmp_path) as (served, door):
        known, unknown = await door.key(), door.ring.new()
        principal = await door.authority.by_secret(known.key, caller=None)  # type: ignore[arg-type]  # a key needs none
        made, _ = await door.authority.client_token(principal, seconds=60.0, models=None, max_seconds=None, origin="")
        said = []
        for key in (known.key, unknown.key, made, made + "x"):
            for metadata in ((("x-api-key", key),), (("authorization", f"Bearer {key}"),)):
                async with HeadraceClient(served.address, metadata=metadata) as client:
                    try:
                        await client.generate("a circle", seconds=0.1)
                    except ClientError as error:
                        said += [str(error), repr(error), repr(error.__cause__)]
                    said.append(repr(client))
        await eventually(lambda: served.service.open_sessions == 0)
        samples = [f"{s.name} {s.labels}" for family in served.registry.collect() for s in family.samples]
        out, err = capsys.readouterr()
        told = "\n".join([caplog.text, *said, *samples, out, err, repr(door.authority), repr(door.keys), repr(principal)])
    assert "Generate ended: unauthenticated" in told
    for planted in (MASTER, known.key[-43:], known.secret_key, unknown.key[-43:], made[-43:], known.digest):
        assert planted not in told


# -- what gRPC says of a peer


@pytest.mark.parametrize(
    ("peer", "address"),
    [("ipv4:10.0.0.7:52144", "10.0.0.7"), ("ipv6:%5B::1%5D:52144", "::1"), ("ipv6:[fe80::1%25eth0]:7", "fe80::1%eth0"), ("unix:", ""),
     ("unix:/run/headrace", ""), ("unix-abstract:x", ""), ("unknown", "unknown"), ("", "unknown")],
)  # fmt: skip
def test_the_address_of_a_peer(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_what_stands_twice_in_the_metadata_is_bad_input() -> None:
    with pytest.raises(InvalidRequest, match="x-headrace-tenant: must be given at most once"):
        named_tenant((("x-headrace-tenant", "a"), ("x-headrace-tenant", "b")))
    with pytest.raises(InvalidRequest, match="got 2 different ones"):
        secret_of((("authorization", "Bearer a"), ("authorization", "Bearer b")))
    assert secret_of((("authorization", "Bearer a"), ("x-api-key", b"a"))) == "a"
    assert secret_of(()) is None

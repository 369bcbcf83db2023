"""The stock client against the real HTTP door, over a socket."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from doors.http.options import HttpTls
from model_core.presets import millrace_64
from service.identity.principal import Caller, Means, Principal, Unauthenticated
from tests.fakes import FakeDenoiser, FakeStages
from tests.http_served import OPTIONS, http_serving
from tests.identities import issued
from tests.unit.doors.http.bedrock.asked import ARN, MODEL, ONE_SECOND, STOCK, frames
from tests.unit.doors.http.fake_jobs import FakeJobDesk

CONFIG = millrace_64()


class OnePair:
    """See `service.identity.principal.Authority`: one pair, whose secret was rotated just now."""

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        if access_key != "AKEY":
            raise Unauthenticated("a valid credential is required")
        return Principal(tenant="acme", subject="AKEY", means=Means.SIGNATURE), ("new secret", "old secret")

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        if presented != "the key":
            raise Unauthenticated("a valid credential is required")
        return Principal(tenant="acme", subject="AKEY", means=Means.KEY)

    async def without_secret(self, caller: Caller) -> Principal:
        raise Unauthenticated("a valid credential is required")

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        raise AssertionError("not here")

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        raise AssertionError("not here")


def client(port: int, access_key: str = "AKEY", secret: str = "old secret") -> Any:  # noqa: S107 - of this test alone
    return boto3.client(
        "bedrock-runtime", endpoint_url=f"http://127.0.0.1:{port}", region_name="eu-west-1", aws_access_key_id=access_key,
        aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


async def test_a_signed_call_is_answered_and_a_forged_one_is_not(tmp_path: Path) -> None:
    def calls(port: int) -> None:
        assert client(port).start_async_invoke(**STOCK)["invocationArn"] == ARN
        assert client(port, secret="new secret").get_async_invoke(invocationArn=ARN)["status"] == "InProgress"  # noqa: S106
        for access_key, secret in (("AKEY", "guess"), ("OTHER", "new secret")):
            with pytest.raises(ClientError) as caught:
                client(port, access_key, secret).list_async_invokes()
            assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"

    async with http_serving(jobs=lambda intake: FakeJobDesk(intake, tmp_path), authority=OnePair()) as served:
        await asyncio.to_thread(calls, served.port)
        for key, status in (("the key", 200), ("another", 403)):
            answer = await served.client.get("/async-invoke", headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == status


async def test_chunks_arrive_while_the_next_ones_are_made() -> None:
    gate = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def watched(port: int) -> bytes:
        """Each chunk is made only when the one before has arrived."""
        answer = client(port).invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(ONE_SECOND))
        video = b""
        for event in answer["body"]:
            video += event["chunk"]["bytes"]
            loop.call_soon_threadsafe(gate.release)
        return video

    async with http_serving(FakeStages(FakeDenoiser(CONFIG, gate=gate)), authority=OnePair()) as served:
        assert frames(await asyncio.to_thread(watched, served.port)) == CONFIG.fps
        await served.nothing_left()


async def test_a_caller_that_leaves_in_the_middle_frees_its_slot() -> None:
    asked = {**ONE_SECOND, "videoGenerationConfig": {"durationSeconds": 600}}

    def left(port: int) -> None:
        boto = client(port)
        answer = boto.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(asked))
        next(iter(answer["body"]))
        answer["body"].close()
        boto.close()

    async with http_serving(FakeStages(FakeDenoiser(CONFIG, delay_s=0.01)), authority=OnePair()) as served:
        await asyncio.to_thread(left, served.port)
        await served.nothing_left()


async def test_a_token_is_sent_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = issued("headrace")
    tls = HttpTls(tmp_path / "tls.crt", tmp_path / "tls.key")
    tls.certificate_file.write_bytes(made.chain)
    tls.key_file.write_bytes(made.key)

    def call(port: int) -> Any:
        boto = boto3.client(
            "bedrock-runtime", endpoint_url=f"https://127.0.0.1:{port}", region_name="eu-west-1", verify=str(tls.certificate_file)
        )
        return boto.start_async_invoke(**STOCK)

    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "the key")
    context, options = ssl.create_default_context(cadata=made.chain.decode()), replace(OPTIONS, tls=tls)
    jobs = partial(FakeJobDesk, folder=tmp_path)
    async with http_serving(options=options, jobs=jobs, authority=OnePair(), verify=context) as served:
        assert (await asyncio.to_thread(call, served.port))["invocationArn"] == ARN

"""The stock client, with its requests handed to the room in place of a network. It signs, parses and raises as everywhere."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.unit.doors.http.bedrock.asked import ARN, MODEL, ONE_SECOND, STOCK, frames
from tests.unit.doors.http.fake_edge import BASE_URL, KEY, Door

Wire = Callable[[str, str, dict[str, str], bytes], httpx.Response]


class Raw(io.BytesIO):
    """What botocore reads a body from."""

    def stream(self, amount: int = 1024, decode_content: bool | None = None) -> Iterator[bytes]:
        while part := self.read(amount):
            yield part


def client(wire: Wire, access_key: str = "acme", secret: str = KEY) -> Any:
    made = boto3.client(
        "bedrock-runtime", endpoint_url=BASE_URL, region_name="eu-west-1", aws_access_key_id=access_key, aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        headers = {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()}
        got = wire(request.method, request.url, headers, request.body or b"")
        return AWSResponse(request.url, got.status_code, HeadersDict(got.headers), Raw(got.content))

    made.meta.events.register("before-send.bedrock-runtime", answer)
    return made


@pytest.fixture
async def wire(bedrock: Door) -> Wire:
    """Sends a request from another thread to the room in this loop."""
    loop = asyncio.get_running_loop()

    def send(method: str, url: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        call = bedrock.client.request(method, url, headers=headers, content=body)
        return asyncio.run_coroutine_threadsafe(call, loop).result(timeout=600)

    return send


async def test_an_invocation_is_started_read_and_listed(bedrock: Door, wire: Wire) -> None:
    def calls() -> tuple[Any, Any, Any]:
        boto = client(wire)
        arn = boto.start_async_invoke(**STOCK)["invocationArn"]
        return arn, boto.get_async_invoke(invocationArn=arn), list(boto.get_paginator("list_async_invokes").paginate(maxResults=1))

    arn, found, pages = await asyncio.to_thread(calls)
    assert arn == ARN == found["invocationArn"]
    assert found["status"] == "InProgress"
    assert found["submitTime"].timestamp() == bedrock.jobs.now
    assert [summary["invocationArn"] for page in pages for summary in page["asyncInvokeSummaries"]] == [ARN]


async def test_a_token_that_boto3_makes_is_one_of_its_own(bedrock: Door, wire: Wire) -> None:
    def calls() -> None:
        boto = client(wire)
        for _ in range(2):
            boto.start_async_invoke(**{name: value for name, value in STOCK.items() if name != "clientRequestToken"})

    await asyncio.to_thread(calls)
    first, second = (new.idempotency_key for new in bedrock.jobs.submitted)
    assert first
    assert first != second


async def test_a_video_is_the_body_of_an_answer(wire: Wire) -> None:
    def call() -> Any:
        answer = client(wire).invoke_model(modelId=MODEL, body=json.dumps(ONE_SECOND), accept="video/mp4")
        return answer["contentType"], answer["body"].read()

    kind, video = await asyncio.to_thread(call)
    assert kind == "video/mp4"
    assert frames(video) == 24


async def test_a_video_is_a_stream_of_chunks(wire: Wire) -> None:
    def call() -> Any:
        answer = client(wire).invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(ONE_SECOND))
        return answer["contentType"], b"".join(event["chunk"]["bytes"] for event in answer["body"])

    kind, video = await asyncio.to_thread(call)
    assert kind == "video/mp4"
    assert frames(video) == 24


@pytest.mark.parametrize(
    ("access_key", "secret", "changes", "name", "message"),
    [
        ("acme", "guess", {}, "UnrecognizedClientException", "the signature must be made of this request"),
        ("nobody", KEY, {}, "UnrecognizedClientException", "access key"),
        ("acme", KEY, {"modelId": "nobody.nothing-v1:0"}, "ValidationException", "modelId: must be one of millrace-64"),
        ("acme", KEY, {"modelInput": {"taskType": "FILM"}}, "ValidationException", "modelInput.taskType: must be one of TEXT_VIDEO"),
    ],
)
async def test_refusals_are_the_clients_own_errors(
    wire: Wire, access_key: str, secret: str, changes: dict[str, Any], name: str, message: str
) -> None:
    def call() -> None:
        client(wire, access_key, secret).start_async_invoke(**{**STOCK, **changes})

    with pytest.raises(ClientError, match=message) as caught:
        await asyncio.to_thread(call)
    assert caught.value.response["Error"]["Code"] == name
    assert caught.value.response["ResponseMetadata"]["RequestId"]


async def test_modelled_errors_have_classes_of_their_own(wire: Wire) -> None:
    def call() -> None:
        boto = client(wire)
        boto.start_async_invoke(**STOCK)
        with pytest.raises(boto.exceptions.ConflictException):
            boto.start_async_invoke(**{**STOCK, "tags": [{"key": "a", "value": "b"}]})
        with pytest.raises(boto.exceptions.ValidationException):
            boto.get_async_invoke(invocationArn=ARN[:-1] + "9")

    await asyncio.to_thread(call)

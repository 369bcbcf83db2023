"""boto3, as anybody installs it, against a server: `python -m bench.doors.bedrock_check --url http://127.0.0.1:8080 --key ACCESS:SECRET`.

Its environment is `requirements-bedrock.txt`. A key with a colon is a pair that signs; another one is sent as a bearer token, which boto3
does over https alone. The check starts the S3 that the server writes to, at `HEADRACE_CHECK_S3`, by default http://127.0.0.1:9555. So the
server must run with `AWS_ENDPOINT_URL_S3` of the same address and any AWS credentials, and the tenant may write to `headrace-check`.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from bench.doors import pictures
from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played

S3_URL = os.environ.get("HEADRACE_CHECK_S3", "http://127.0.0.1:9555")
BUCKET, REGION = "headrace-check", "us-east-1"
NOVA, LUMA = "amazon.nova-reel-v1:1", "luma.ray-v2:0"
OUTPUT = {"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/videos"}}
# As AWS's own example has it.
STOCK: dict[str, Any] = {
    "modelId": NOVA,
    "modelInput": {
        "taskType": "TEXT_VIDEO",
        "textToVideoParams": {"text": "a red circle moving right"},
        "videoGenerationConfig": {"durationSeconds": 6, "fps": 24, "dimension": "1280x720", "seed": 7},
    },
    "outputDataConfig": OUTPUT,
}
_WAIT_S, _POLL_S = 600.0, 0.5


def main() -> None:
    target, cases = Target.of_arguments(), Cases("bedrock")
    with storage() as s3:
        Check(connect(target, target.key), s3).run(cases)
        refusals(cases, target)
    cases.end()


def connect(target: Target, key: str) -> Any:
    """The client, with a pair that signs, or with a token."""
    access_key, colon, secret = key.partition(":")
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    if not colon and target.url.startswith("https://"):
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = key
        return boto3.client("bedrock-runtime", endpoint_url=target.url, region_name=REGION, config=config)
    return boto3.client(
        "bedrock-runtime", endpoint_url=target.url, region_name=REGION, config=config, aws_access_key_id=access_key,
        aws_secret_access_key=secret or "none",
    )  # fmt: skip


@contextmanager
def storage() -> Iterator[Any]:
    """An S3 with the bucket, and a client for it."""
    address = urlsplit(S3_URL)
    server = ThreadedMotoServer(address.hostname or "127.0.0.1", address.port or 9555, verbose=False)
    server.start()
    try:
        s3 = boto3.client("s3", endpoint_url=S3_URL, region_name=REGION, aws_access_key_id="any", aws_secret_access_key="any")  # noqa: S106
        s3.create_bucket(Bucket=BUCKET)
        yield s3
    finally:
        server.stop()


class Check:
    """What a caller with a sound key does."""

    def __init__(self, client: Any, s3: Any) -> None:
        self.client = client
        self.s3 = s3
        self.arn = ""

    def run(self, cases: Cases) -> None:
        cases.run_all(
            (
                ("create", self.create),
                ("wait", self.wait),
                ("fetch", self.fetch),
                ("files beside the video", self.files),
                ("list", self.list),
                ("same token", self.token),
                ("image to video", self.image),
                ("shots", self.shots),
                ("Luma's input", self.luma),
                ("invoke", self.invoke),
                ("response stream", self.stream),
                ("cancel", self.no_cancel),
                ("delete", self.no_cancel),
                ("another's bucket", self.bucket),
                ("bad input", self.bad_input),
            )
        )

    def create(self) -> str:
        self.arn = self.client.start_async_invoke(**STOCK)["invocationArn"]
        return self.arn

    def wait(self) -> str:
        found = self._waited(self.arn)
        check(found["status"] == "Completed", f"{found.get('failureMessage')}")
        check(found["modelArn"].endswith(f"foundation-model/{NOVA}"), found["modelArn"])
        check(found["endTime"] >= found["submitTime"], f"{found}")
        return f"{(found['endTime'] - found['submitTime']).total_seconds():.1f} s"

    def fetch(self) -> str:
        data = self._object(self.arn, "output.mp4")
        check(played(data) == (144, 1280, 720), f"{played(data)}")
        return f"{len(data)} bytes"

    def files(self) -> None:
        manifest, status = (json.loads(self._object(self.arn, name)) for name in ("manifest.json", "video-generation-status.json"))
        check(manifest["files"][0]["sizeBytes"] == len(self._object(self.arn, "output.mp4")), f"{manifest}")
        check(status["fullVideo"]["status"] == "SUCCESS" and status["fullVideo"]["location"].endswith("/output.mp4"), f"{status}")

    def list(self) -> str:
        more = [self._started(_text("a blue square", 1)) for _ in range(3)]
        pages = list(
            self.client.get_paginator("list_async_invokes").paginate(maxResults=2, sortBy="SubmissionTime", sortOrder="Descending")
        )
        found = [summary["invocationArn"] for page in pages for summary in page["asyncInvokeSummaries"]]
        check(found[:3] == more[::-1], f"the newest are {found[:3]}, not {more[::-1]}")
        check(self.arn in found and len(set(found)) == len(found), "the first invocation is missing, or one is listed twice")
        for arn in more:
            self._waited(arn)
        done = self.client.list_async_invokes(statusEquals="Completed", maxResults=1000)["asyncInvokeSummaries"]
        check({self.arn, *more} <= {summary["invocationArn"] for summary in done}, "a completed one is not among the completed")
        return f"{len(found)} invocations"

    def token(self) -> None:
        asked = {**STOCK, "modelInput": _text("a green star", 1), "clientRequestToken": uuid.uuid4().hex}
        made = {self.client.start_async_invoke(**asked)["invocationArn"] for _ in range(2)}
        check(len(made) == 1, f"two invocations: {made}")
        other = {**asked, "modelInput": _text("a blue star", 1)}
        raises(self.client.exceptions.ConflictException, lambda: self.client.start_async_invoke(**other))

    def image(self) -> None:
        model_input = _text("a red circle", 1)
        source = {"bytes": base64.b64encode(pictures.png()).decode()}
        model_input["textToVideoParams"]["images"] = [{"format": "png", "source": source}]
        self._completed(model_input)

    def shots(self) -> None:
        shots = [{"text": "a red circle"}, {"text": "a blue square"}]
        arn = self._completed({"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": shots}})
        frames, _, _ = played(self._object(arn, "output.mp4"))
        check(frames == 288, f"{frames} frames")

    def luma(self) -> None:
        model_input = {"prompt": "a red circle", "aspect_ratio": "1:1", "duration": "5s", "resolution": "540p", "loop": False}
        arn = self._completed(model_input, LUMA)
        check(played(self._object(arn, "output.mp4")) == (120, 540, 540), "another size or length")

    def invoke(self) -> str:
        body = json.dumps(_text("a red circle", 1))
        answer = json.loads(self.client.invoke_model(modelId=NOVA, body=body)["body"].read())
        check(played(base64.b64decode(answer["video"]))[0] == 24, "another length")
        data = self.client.invoke_model(modelId=NOVA, body=body, accept="video/mp4")["body"].read()
        check(played(data)[0] == 24, "another length")
        return f"usage {answer['usage']}"

    def stream(self) -> str:
        began = time.monotonic()
        answer = self.client.invoke_model_with_response_stream(modelId=NOVA, body=json.dumps(_text("a red circle", 6)))
        parts: list[bytes] = []
        first_s = 0.0
        for event in answer["body"]:
            parts.append(event["chunk"]["bytes"])
            first_s = first_s or time.monotonic() - began
        check(played(b"".join(parts))[0] == 144, "another length")
        return f"{len(parts)} parts, the first after {first_s:.2f} s, the last after {time.monotonic() - began:.2f} s"

    def no_cancel(self) -> None:
        raise Skipped("Amazon Bedrock has no such operation")

    def bucket(self) -> None:
        output = {"s3OutputDataConfig": {"s3Uri": "s3://the-bucket-of-another/videos"}}
        raises(
            self.client.exceptions.AccessDeniedException, lambda: self.client.start_async_invoke(**{**STOCK, "outputDataConfig": output})
        )

    def bad_input(self) -> str:
        told = []
        wrong: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
            ({"modelId": "nobody.nothing-v1:0"}, ("modelId", "nobody.nothing-v1:0")),
            ({"modelInput": _text("a", 3600)}, ("modelInput.videoGenerationConfig.durationSeconds", "3600")),
            ({"modelInput": _text(" ", 6)}, ("modelInput.textToVideoParams.text", "white space")),
            ({"modelInput": {"taskType": "FILM"}}, ("modelInput.taskType", "TEXT_VIDEO", "FILM")),
            ({"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "https://example.com"}}}, ("s3Uri", "s3://", "https://example.com")),
        )
        for changes, parts in wrong:
            call = partial(self.client.start_async_invoke, **{**STOCK, **changes})
            error: Any = raises(self.client.exceptions.ValidationException, call, *parts)
            check(error.response["ResponseMetadata"]["RequestId"], "no request id")
            told.append(error.response["Error"]["Message"])
        unknown = self.arn[:-12] + "0" * 12
        raises(self.client.exceptions.ValidationException, lambda: self.client.get_async_invoke(invocationArn=unknown))
        raises(self.client.exceptions.ValidationException, lambda: self.client.list_async_invokes(nextToken="none"), "nextToken")
        return " | ".join(told)

    def _started(self, model_input: dict[str, Any], model: str = NOVA) -> str:
        asked = {"modelId": model, "modelInput": model_input, "outputDataConfig": OUTPUT}
        return str(self.client.start_async_invoke(**asked)["invocationArn"])

    def _completed(self, model_input: dict[str, Any], model: str = NOVA) -> str:
        arn = self._started(model_input, model)
        found = self._waited(arn)
        check(found["status"] == "Completed", f"{found.get('failureMessage')}")
        return arn

    def _waited(self, arn: str) -> Any:
        end = time.monotonic() + _WAIT_S
        while (found := self.client.get_async_invoke(invocationArn=arn))["status"] == "InProgress":
            check(time.monotonic() < end, f"not done after {_WAIT_S:g} s")
            time.sleep(_POLL_S)
        return found

    def _object(self, arn: str, name: str) -> bytes:
        """A file of the folder that the invocation names."""
        found = self.client.get_async_invoke(invocationArn=arn)
        folder = urlsplit(f"{found['outputDataConfig']['s3OutputDataConfig']['s3Uri']}/{name}")
        data: bytes = self.s3.get_object(Bucket=folder.netloc, Key=folder.path.lstrip("/"))["Body"].read()
        return data


def refusals(cases: Cases, target: Target) -> None:
    """What a caller without a sound key gets."""

    def refused(key: str, call: Callable[[Any], object], codes: set[str]) -> str:
        error: Any = raises(ClientError, lambda: call(connect(target, key)))
        code = error.response["Error"]["Code"]
        check(code in codes, f"the error is {code}")
        return f"{error}"

    def wrong_key() -> str:
        if not target.wrong_key:
            raise Skipped("the server takes any key")
        return refused(target.wrong_key, lambda client: client.list_async_invokes(), {"UnrecognizedClientException"})

    def wrong_secret() -> str:
        access_key, colon, _ = target.key.partition(":")
        if not target.wrong_key or not colon:
            raise Skipped("the server takes any key, or this one does not sign")
        return refused(f"{access_key}:guess", lambda client: client.list_async_invokes(), {"UnrecognizedClientException"})

    def over_quota() -> str:
        if not target.spent_key:
            raise Skipped("no key whose quota is used up")
        spent = {"ServiceQuotaExceededException", "ThrottlingException"}
        return refused(target.spent_key, lambda client: client.start_async_invoke(**STOCK), spent)

    cases.run("wrong key", wrong_key)
    cases.run("wrong secret", wrong_secret)
    cases.run("over quota", over_quota)


def _text(text: str, seconds: float) -> dict[str, Any]:
    return {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": text}, "videoGenerationConfig": {"durationSeconds": seconds}}


if __name__ == "__main__":
    main()

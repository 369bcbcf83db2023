"""Asynchronous invocations, as a client of Amazon Bedrock starts, reads and lists them."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest

from doors.http.bedrock.room import BedrockRoom
from model_core.errors import CapacityExceeded, StageUnavailable
from service.identity.principal import Forbidden, QuotaExceeded
from service.jobs.job import Destination, JobError, Presentation, Tier
from tests.core import core
from tests.unit.doors.http.bedrock.asked import ARN, STOCK
from tests.unit.doors.http.fake_edge import KEY, OTHER_KEY, PRINCIPALS, Door, door, services
from tests.unit.doors.http.fake_jobs import NOW


async def start(bedrock: Door, headers: dict[str, str] | None = None, **changes: object) -> httpx.Response:
    return await bedrock.client.post("/async-invoke", json={**STOCK, **changes}, headers=headers)


async def read(bedrock: Door, arn: str = ARN, **headers: str) -> httpx.Response:
    """As boto3 does: the whole ARN is one segment of the path, encoded."""
    return await bedrock.client.get(f"/async-invoke/{quote(arn, safe='')}", headers=headers)


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.headers["x-amzn-errortype"], answer.json()["message"]


async def test_a_start_is_a_job_with_the_callers_folder_and_size(bedrock: Door) -> None:
    answer = await start(bedrock, tags=[{"key": "team", "value": "films"}])
    assert (answer.status_code, answer.json()) == (200, {"invocationArn": ARN})
    assert answer.headers["x-amzn-requestid"]
    new = bedrock.jobs.submitted[0]
    assert (new.door, new.idempotency_key, new.tier, new.labels) == ("bedrock", "token-1", Tier.DEFAULT, {"team": "films"})
    assert new.destination == Destination("s3://bucket/prefix")
    assert new.presentation == Presentation(1280, 720)
    assert (new.request.prompt, new.request.seconds, new.request.seed) == ("a red circle", 6.0, 7)


@pytest.mark.parametrize("shots", [1, 20])
async def test_twenty_shots_are_one_video_of_two_minutes(bedrock: Door, shots: int) -> None:
    asked = {"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": [{"text": f"shot {n}"} for n in range(shots)]}}
    if shots == 1:
        asked = {
            "taskType": "MULTI_SHOT_AUTOMATED",
            "multiShotAutomatedParams": {"text": "a story"},
            "videoGenerationConfig": {"durationSeconds": 120},
        }
    answer = await start(bedrock, modelInput=asked)
    assert answer.status_code == 200, answer.text
    assert bedrock.jobs.only.seconds == 120.0


async def test_an_invocation_is_in_progress_until_it_is_completed(bedrock: Door) -> None:
    await start(bedrock)
    queued = (await read(bedrock)).json()
    bedrock.jobs.start("job000000000")
    running = (await read(bedrock)).json()
    bedrock.jobs.now += 9
    bedrock.jobs.complete("job000000000")
    completed = (await read(bedrock)).json()
    assert [found["status"] for found in (queued, running, completed)] == ["InProgress", "InProgress", "Completed"]
    assert "endTime" not in running
    assert completed == {
        "invocationArn": ARN,
        "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-reel-v1:1",
        "clientRequestToken": "token-1",
        "status": "Completed",
        "submitTime": "2023-11-14T22:13:20.000Z",
        "lastModifiedTime": "2023-11-14T22:13:29.000Z",
        "endTime": "2023-11-14T22:13:29.000Z",
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/prefix/job000000000"}},
    }


async def test_a_failure_says_why_and_so_does_a_cancel(bedrock: Door) -> None:
    await start(bedrock)
    await start(bedrock, clientRequestToken="token-2")
    bedrock.jobs.fail("job000000000", JobError("destination", "the bucket does not take the files"))
    await bedrock.jobs.cancel(PRINCIPALS[KEY], "job000000001")
    failed, cancelled = (await read(bedrock)).json(), (await read(bedrock, ARN.replace("000000000000:", "123456789012:")[:-1] + "1")).json()
    assert (failed["status"], failed["failureMessage"]) == ("Failed", "the bucket does not take the files")
    assert (cancelled["status"], cancelled["failureMessage"]) == ("Failed", "the invocation was cancelled")


async def test_the_video_in_the_callers_bucket_outlives_the_servers_copy(bedrock: Door) -> None:
    await start(bedrock)
    bedrock.jobs.complete("job000000000")
    bedrock.jobs.expire("job000000000")
    assert (await read(bedrock)).json()["status"] == "Completed"


async def test_the_same_token_and_request_are_the_same_invocation_and_another_request_conflicts(bedrock: Door) -> None:
    assert (await start(bedrock)).json() == (await start(bedrock)).json()
    assert len(bedrock.jobs.submitted) == 1
    status, name, _ = problem(await start(bedrock, tags=[{"key": "a", "value": "b"}]))
    assert (status, name) == (400, "ConflictException")


@pytest.mark.parametrize(("tier", "meant"), [("priority", Tier.PRIORITY), ("reserved", Tier.PRIORITY), ("flex", Tier.FLEX)])
async def test_service_tiers_say_which_of_the_queued_go_first(bedrock: Door, tier: str, meant: Tier) -> None:
    await start(bedrock, {"X-Amzn-Bedrock-Service-Tier": tier})
    assert bedrock.jobs.submitted[0].tier is meant


async def test_a_list_has_the_callers_invocations_newest_first_page_by_page(bedrock: Door) -> None:
    for number in range(3):
        bedrock.jobs.now = NOW + number
        await start(bedrock, clientRequestToken=f"token-{number}")
    first = (await bedrock.client.get("/async-invoke", params={"maxResults": "2"})).json()
    second = (await bedrock.client.get("/async-invoke", params={"maxResults": "2", "nextToken": first["nextToken"]})).json()
    tokens = [found["clientRequestToken"] for found in (*first["asyncInvokeSummaries"], *second["asyncInvokeSummaries"])]
    assert tokens == ["token-2", "token-1", "token-0"]
    assert "nextToken" not in second


async def test_a_list_is_filtered_and_ordered_as_the_caller_says(bedrock: Door) -> None:
    for number in range(4):
        bedrock.jobs.now = NOW + number
        await start(bedrock, clientRequestToken=f"token-{number}")
    bedrock.jobs.complete("job000000001")
    bedrock.jobs.fail("job000000002", JobError("internal", "broken"))

    async def tokens(**params: str) -> list[str]:
        answer = await bedrock.client.get("/async-invoke", params=params)
        return [found["clientRequestToken"] for found in answer.json()["asyncInvokeSummaries"]]

    assert await tokens(sortBy="SubmissionTime", sortOrder="Ascending") == ["token-0", "token-1", "token-2", "token-3"]
    assert await tokens(statusEquals="InProgress") == ["token-3", "token-0"]
    assert await tokens(statusEquals="Completed") == ["token-1"]
    assert await tokens(statusEquals="Failed") == ["token-2"]
    assert await tokens(submitTimeAfter="2023-11-14T22:13:22Z") == ["token-3", "token-2"]
    assert await tokens(submitTimeBefore="2023-11-14T22:13:21Z") == ["token-1", "token-0"]


async def test_what_is_wrong_with_a_list_is_named(bedrock: Door) -> None:
    params = {"maxResults": "0", "statusEquals": "Done", "nextToken": "x", "sortOrder": "Up", "submitTimeAfter": "then"}
    status, name, message = problem(await bedrock.client.get("/async-invoke", params=params))
    assert (status, name) == (400, "ValidationException")
    assert message.split("; ") == [
        "maxResults: must be a whole number from 1 to 1000", "got '0'", "statusEquals: must be one of InProgress, Completed, Failed",
        "got 'Done'", "nextToken: must be the nextToken of a page before", "got 'x'", "sortOrder: must be Ascending or Descending",
        "got 'Up'", "submitTimeAfter: must be a time in ISO 8601", "got 'then'",
    ]  # fmt: skip


@pytest.mark.parametrize("arn", ["job000000000", "arn:aws:bedrock:us-east-1:1:async-invoke/job000000000", f"{ARN}/x", ""])
async def test_what_is_no_arn_of_an_invocation_is_refused(bedrock: Door, arn: str) -> None:
    await start(bedrock)
    status, name, message = problem(await read(bedrock, arn))
    assert (status, name) == (400, "ValidationException")
    assert message.startswith("invocationArn: must be an ARN")


async def test_unknown_invocations_and_those_of_other_tenants_and_doors_are_answered_alike(bedrock: Door) -> None:
    await start(bedrock)
    theirs = await read(bedrock, authorization=f"Bearer {OTHER_KEY}")
    unknown = await read(bedrock, ARN[:-1] + "9")
    bedrock.jobs._jobs["job000000000"] = replace(bedrock.jobs.only, door="openai")  # noqa: SLF001 - no method makes a job of another door
    elsewhere = await read(bedrock)
    assert {problem(answer)[:2] for answer in (theirs, unknown, elsewhere)} == {(400, "ValidationException")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modelId": None}, "modelId: is required; got none"),
        ({"modelInput": "x"}, "modelInput: must be an object; got 'x'"),
        ({"outputDataConfig": None}, "outputDataConfig: is required; got none"),
        (
            {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "https://bucket", "bucketOwner": "me", "kmsKeyId": "k"}}},
            (
                "outputDataConfig.s3OutputDataConfig.s3Uri: must be s3://BUCKET or s3://BUCKET/FOLDER, with a name as S3 takes it; "
                "got 'https://bucket'; "
                "outputDataConfig.s3OutputDataConfig.bucketOwner: must be an account of 12 digits; got 'me'; "
                "outputDataConfig.s3OutputDataConfig.kmsKeyId: must be unset: what the bucket itself says of encryption counts; got 'k'"
            ),
        ),
        ({"webhook": "x"}, "webhook: must be unset: it means nothing here"),
        (
            {"modelInput": {**STOCK["modelInput"], "textToVideoParams": {"text": " "}}},
            "modelInput.textToVideoParams.text: must hold at least 1 character that is not white space; got ' '",
        ),
        (
            {"modelInput": {**STOCK["modelInput"], "videoGenerationConfig": {"durationSeconds": 0}}},
            "modelInput.videoGenerationConfig.durationSeconds: must be a number from more than 0 to 600; got 0",
        ),
    ],
)
async def test_bad_input_is_a_validation_exception_that_names_the_callers_field(
    bedrock: Door, changes: dict[str, object], message: str
) -> None:
    status, name, said = problem(await start(bedrock, None, **changes))
    assert (status, name) == (400, "ValidationException")
    assert message in said


async def test_a_tier_that_is_none_is_named(bedrock: Door) -> None:
    _, _, said = problem(await start(bedrock, {"X-Amzn-Bedrock-Service-Tier": "gold"}))
    assert said == "x-amzn-bedrock-service-tier: must be one of priority, reserved, default, flex; got 'gold'"


@pytest.mark.parametrize(
    ("error", "expected", "retry_ms"),
    [
        (Forbidden("the bucket is not among those that the caller may name"), (403, "AccessDeniedException"), None),
        (QuotaExceeded("spent", limit="seconds", allowed=1, used=1), (400, "ServiceQuotaExceededException"), None),
        (QuotaExceeded("many", limit="queued_jobs", allowed=1, used=1, retry_after_s=0.5), (429, "ThrottlingException"), "500"),
        (CapacityExceeded("full", 2.0), (429, "ThrottlingException"), "2000"),
        (StageUnavailable("away"), (503, "ServiceUnavailableException"), "2000"),
        (RuntimeError("a defect"), (500, "InternalServerException"), None),
    ],
)
async def test_errors_have_the_names_that_boto3_knows_and_say_when_to_come_back(
    bedrock: Door, error: Exception, expected: tuple[int, str], retry_ms: str | None
) -> None:
    bedrock.jobs.error = error
    answer = await start(bedrock)
    assert problem(answer)[:2] == expected
    assert answer.headers.get("x-amz-retry-after") == retry_ms


async def test_a_key_that_is_wrong_is_refused_as_amazon_does(bedrock: Door) -> None:
    answer = await start(bedrock, {"authorization": "Bearer wrong"})
    assert problem(answer)[:2] == (403, "UnrecognizedClientException")


async def test_without_a_database_there_are_no_invocations() -> None:
    async with core() as made, door(BedrockRoom(services(made, None)), made, None) as bare:
        for answer in (await start(bare), await read(bare), await bare.client.get("/async-invoke")):
            assert problem(answer)[:2] == (501, "NotImplementedException")

"""Reads what StartAsyncInvoke asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doors.http.bedrock import aws, inputs
from doors.http.given import Given, shown
from service.checks import Problems
from service.jobs.job import Destination, NewJob, Tier
from service.orders import Doorway, Mode

TIER = "x-amzn-bedrock-service-tier"  # header

_TIERS = {"priority": Tier.PRIORITY, "reserved": Tier.PRIORITY, "default": Tier.DEFAULT, "flex": Tier.FLEX}
# Of what an input does not hold.
_NAMES = {"destination": "outputDataConfig.s3OutputDataConfig.s3Uri", "idempotency_key": "clientRequestToken", "labels": "tags"}
_MAX_TAGS = 200
_MAX_TOKEN_CHARS = 256


async def new_job(body: Mapping[str, Any], tier: str, door: str, problems: Problems) -> NewJob:
    """The job, if there is nothing wrong with it.

    Args:
        tier: what the header says; empty where there is none.
        door: the door's name.
        problems: where to add what is wrong.
    """
    given = Given(body, problems)
    given.only("modelId", "modelInput", "outputDataConfig", "clientRequestToken", "tags")
    model = aws.model_of(given.text("modelId", required=True))
    members = given.value("modelInput")
    if not isinstance(members, dict):
        given.refuse("modelInput", "must be an object")
    asked = await inputs.read(model, members if isinstance(members, dict) else {}, "modelInput.", problems)
    destination = _destination(given.inner("outputDataConfig", required=True))
    token = given.text("clientRequestToken")
    if len(token) > _MAX_TOKEN_CHARS:
        given.refuse("clientRequestToken", f"must be at most {_MAX_TOKEN_CHARS} characters")
    if tier and tier not in _TIERS:
        problems.add(TIER, f"must be one of {', '.join(_TIERS)}; got {shown(tier)}")
    labels = _labels(given)
    return NewJob(
        door=door, request=asked.request, doorway=Doorway(Mode.JOB, "modelInput.", {**asked.names, **_NAMES}),
        presentation=asked.presentation, shown={"model": model, "token": token}, idempotency_key=token, labels=labels,
        destination=destination, tier=_TIERS.get(tier, Tier.DEFAULT),
    )  # fmt: skip


def _destination(config: Given) -> Destination:
    config.only("s3OutputDataConfig")
    target = config.inner("s3OutputDataConfig", required=True)
    uri, owner = target.text("s3Uri", required=True), target.text("bucketOwner")
    if uri and not aws.is_folder(uri):
        target.refuse("s3Uri", "must be s3://BUCKET or s3://BUCKET/FOLDER, with a name as S3 takes it")
    if owner and not aws.is_account(owner):
        target.refuse("bucketOwner", "must be an account of 12 digits")
    target.unset("kmsKeyId", "what the bucket itself says of encryption counts")
    target.only("s3Uri", "bucketOwner", "kmsKeyId")
    return Destination(uri, owner)


def _labels(given: Given) -> dict[str, str]:
    labels = {}
    for tag in given.items("tags", most=_MAX_TAGS):
        labels[tag.text("key", required=True)] = tag.text("value")
        tag.only("key", "value")
    return labels

"""Whatever fields a caller sends are a job or a refusal that can be written, and a job that was made can be shown."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.http.given import check_all
from doors.http.openai.refusals import refusal
from doors.http.openai.requests import Requests, parent_id
from doors.http.openai.videos import video
from model_core.errors import InvalidRequest
from service.checks import Problems
from service.failures import failure_of
from service.intake import Intake
from service.jobs.job import Job, JobNotFound, JobStatus, NewJob
from tests.core import core

HALF = chr(0xD800)  # of a pair, as JSON may have it
FIELDS = (
    "prompt", "model", "seconds", "size", "input_reference", "user", "webhook", "extra_params", "num_frames", "fps", "num_inference_steps",
    "guidance_scale", "negative_prompt", "seed", "width", "height", "video", "id", "url", "secret", "image_url", "file_id",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=8),
    st.sampled_from(("a", "4", "0.5", "sora-2", "1280x720", "7x7", "{", "{}", "data:video/mp4;base64,AAAAGGZ0eXA=", "whsec_", "video_1")),
    st.just(HALF),
)  # fmt: skip
NAMES = st.sampled_from((*FIELDS, HALF, "", "x" * 100))
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)
BODIES = st.dictionaries(NAMES, JSON, max_size=8)
PARENT = Job(
    id="abcdefgh0123", tenant="acme", door="openai", status=JobStatus.COMPLETED, model="millrace-64", prompt="a red circle", seconds=2.0,
    seed=5, steps=4, width=1280, height=720, fps=24, created_at=0.0, updated_at=1.0, shown={"later_prompts": [[1.0, "a blue square"]]},
)  # fmt: skip


@pytest.fixture(scope="module")
def intake() -> Intake:
    async def made() -> Intake:
        async with core() as served:
            return served.intake

    return asyncio.run(made())


async def asked(requests: Requests, body: dict[str, Any], problems: Problems) -> list[NewJob]:
    return [
        await requests.creation(dict(body), problems, ""),
        await requests.remix(dict(body), PARENT, problems, ""),
        await requests.edit(dict(body), PARENT, problems, ""),
        await requests.extension(dict(body), PARENT, problems, ""),
        await requests.extension_of_file(dict(body), b"no video", problems, ""),
    ]


@given(body=BODIES)
@settings(max_examples=150, deadline=None)
def test_any_fields_are_a_job_or_a_refusal(intake: Intake, body: dict[str, Any]) -> None:
    problems = Problems()
    for new in asyncio.run(asked(Requests(intake), body, problems)):
        json.dumps({**new.shown, **new.labels}, allow_nan=False)
        try:
            check_all(problems, intake, new.request, new.doorway)
            intake.order(new.request, new.doorway)
        except InvalidRequest as error:
            answer = refusal(failure_of(error, "req-1"))
        else:
            continue
        assert (answer.status_code, json.loads(bytes(answer.body))["error"]["code"]) == (400, "invalid_value")


@given(named=JSON)
@settings(max_examples=100, deadline=None)
def test_any_name_of_a_parent_is_an_id_or_a_refusal(named: object) -> None:
    try:
        found = parent_id(named)
    except (InvalidRequest, JobNotFound) as error:
        found = f"{refusal(failure_of(error, 'req-1')).status_code}"
    assert found


@given(
    shown=st.dictionaries(st.sampled_from(("model", "size", "seconds", "prompt")), st.text(max_size=8)), status=st.sampled_from(JobStatus)
)
@settings(max_examples=50, deadline=None)
def test_any_job_can_be_shown(shown: dict[str, str], status: JobStatus) -> None:
    found = video(replace(PARENT, shown=shown, status=status), None)
    assert found["status"] in {"queued", "in_progress", "completed", "failed"}
    assert (found["error"] is None) == (found["status"] != "failed")

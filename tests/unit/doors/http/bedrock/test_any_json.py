"""Whatever JSON a caller sends is a job or a refusal that can be written."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doors.http.bedrock import errors, starting
from model_core.errors import InvalidRequest
from service.checks import Problems
from service.failures import failure_of
from service.jobs.job import NewJob

HALF = chr(0xD800)  # of a pair, as JSON may have it
NAMES = st.sampled_from(
    (
        "modelId", "modelInput", "outputDataConfig", "s3OutputDataConfig", "s3Uri", "bucketOwner", "clientRequestToken", "tags", "key",
        "value", "taskType", "textToVideoParams", "multiShotManualParams", "shots", "text", "images", "image", "format", "source", "bytes",
        "videoGenerationConfig", "durationSeconds", "fps", "dimension", "seed", "prompt", "duration", "aspect_ratio", "resolution", "loop",
        "keyframes", "frame0", "type", "data", HALF, "", "x" * 100,
    )
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=8),
    st.sampled_from(("TEXT_VIDEO", "MULTI_SHOT_MANUAL", "5s", "16:9", "1280x720", "s3://bucket/a", "iVBORw0K", HALF)),
)  # fmt: skip
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)
INPUTS = st.fixed_dictionaries(
    {"taskType": st.sampled_from(("TEXT_VIDEO", "MULTI_SHOT_AUTOMATED", "MULTI_SHOT_MANUAL"))},
    optional={
        "textToVideoParams": JSON,
        "multiShotAutomatedParams": JSON,
        "multiShotManualParams": st.fixed_dictionaries(
            {}, optional={"shots": st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=3)}
        ),
        "videoGenerationConfig": st.dictionaries(NAMES, JSON, max_size=4),
    },
)
BODIES = st.fixed_dictionaries({}, optional={"modelId": JSON, "modelInput": INPUTS | JSON, "outputDataConfig": JSON, "tags": JSON})


@given(body=BODIES, tier=st.sampled_from(("", "flex", "gold", HALF)))
@settings(max_examples=150, deadline=None)
def test_any_start_is_a_job_or_a_refusal(body: dict[str, Any], tier: str) -> None:
    problems = Problems()
    made = asyncio.run(starting.new_job(body, tier, "bedrock", problems))
    try:
        problems.check()
    except InvalidRequest as error:
        answer = errors.refusal(failure_of(error, "req-1"))
        assert answer.status_code == 400
        assert answer.body
    else:
        assert isinstance(made, NewJob)

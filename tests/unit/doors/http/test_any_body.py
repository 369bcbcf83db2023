"""Whatever JSON a vendor's room is sent, it makes a job of it, or says which fields are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.http.decart.requests import token_request
from doors.http.google import interactions, predictions
from doors.http.runway.requests import Task, new_job
from model_core.errors import InvalidRequest
from service.checks import Problems
from service.intake import Intake
from tests.core import core

# Names at any depth, so that values meet the readers of fields.
NAMES = (
    "model", "input", "type", "text", "data", "uri", "content", "role", "image", "video", "instances", "parameters", "prompt", "seed",
    "fps", "durationSeconds", "aspectRatio", "resolution", "labels", "bytesBase64Encoded", "inlineData", "stream", "background", "store",
    "response_format", "delivery", "duration", "generation_config", "video_config", "task", "service_tier", "tools", "promptText",
    "promptImage", "promptVideo", "videoUri", "ratio", "position", "audio", "references", "expiresIn", "allowedModels", "allowedOrigins",
    "constraints", "realtime", "maxSessionDuration", "metadata",
)  # fmt: skip
TEXTS = (
    "", " ", "a red circle", "gen4.5", "16:9", "1:9999", "9999:1", "4s", "720p", "1080P", "text", "image", "user_input", "first", "flex",
    "aGVsbG8=", "data:image/png;base64,iVBORw0KGgo=", "data:,", "https://example.com/a", "\ud800", "\x1b", "1e999", "-1", "٣",
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=12)

Read = Callable[[dict[str, Any], Intake], Awaitable[object]]


async def _intake() -> Intake:
    async with core() as made:
        return made.intake


INTAKE = asyncio.run(_intake())


async def _token(body: dict[str, Any], intake: Intake) -> object:
    return token_request(body, intake)


READERS: dict[str, Read] = {
    "Vertex AI": lambda body, intake: predictions.new_job(
        "veo-3", {"instances": [body], "parameters": body} | body, "", Problems(), intake
    ),
    "Interactions": lambda body, intake: interactions.asked(body, Problems(), intake),
    "Runway, text": lambda body, intake: new_job(Task.TEXT, body, "", Problems(), intake),
    "Runway, image": lambda body, intake: new_job(Task.IMAGE, body, "", Problems(), intake),
    "Runway, video": lambda body, intake: new_job(Task.VIDEO, body, "", Problems(), intake),
    "Decart's tokens": _token,
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, deadline=None)
@given(body=BODIES)
def test_any_body_is_a_job_or_has_fields_that_are_wrong(name: str, body: dict[str, Any]) -> None:
    error = asyncio.run(_refused(READERS[name], body))
    if error is not None:
        fields = [violation.field for violation in error.violations]
        assert fields
        assert len(set(fields)) == len(fields)
        assert all(violation.description and len(violation.description) < 1000 for violation in error.violations)
        str(error).encode()


async def _refused(read: Read, body: dict[str, Any]) -> InvalidRequest | None:
    try:
        assert await read(body, INTAKE) is not None
    except InvalidRequest as error:
        return error
    return None

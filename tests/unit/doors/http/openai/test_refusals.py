"""Each kind of failure has the status by which the client picks its class, and says whether to try again."""

from __future__ import annotations

import json

import pytest

from doors.http.openai.refusals import SHAPES, refusal
from model_core.errors import FieldViolation
from service.failures import Failure, Kind


def body(failure: Failure) -> dict[str, object]:
    found: dict[str, object] = json.loads(bytes(refusal(failure).body))["error"]
    return found


def test_every_kind_of_failure_has_a_shape() -> None:
    assert set(SHAPES) == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_clients_try_again_only_where_the_answer_says_when(kind: Kind) -> None:
    """After 408, 409, 429 and 5xx they would do so unasked, and send a creation up to three times."""
    never = refusal(Failure(kind=kind, message="no", request_id="req-1"))
    later = refusal(Failure(kind=kind, message="no", retry_after_s=0.25, request_id="req-1"))
    assert (never.headers["x-should-retry"], never.headers.get("retry-after-ms")) == ("false", None)
    assert ("x-should-retry" in later.headers, later.headers["retry-after-ms"], later.headers["retry-after"]) == (False, "250", "1")
    assert never.headers["x-request-id"] == "req-1"


def test_the_first_field_that_is_wrong_is_the_parameter() -> None:
    violations = (FieldViolation("size", "must be even"), FieldViolation("seed", "must be whole"))
    assert body(Failure(kind=Kind.INVALID, message="size: must be even; seed: must be whole", violations=violations)) == {
        "message": "size: must be even; seed: must be whole", "type": "invalid_request_error", "param": "size", "code": "invalid_value",
    }  # fmt: skip
    assert body(Failure(kind=Kind.NOT_FOUND, message="there is no video"))["param"] is None


def test_a_caller_without_a_key_is_told_how_to_send_one() -> None:
    answer = refusal(Failure(kind=Kind.UNAUTHENTICATED, message="the API key is missing, or not one of this server's"))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

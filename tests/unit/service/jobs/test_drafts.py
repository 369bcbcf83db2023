"""What new jobs must pass, without a database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model_core.errors import InvalidRequest
from model_core.presets import DEFAULT_MODEL, millrace_64
from service.checks import Catalogue, Limits, Problems, Validator
from service.identity.principal import Forbidden, Principal
from service.jobs.desk.drafts import JobChecks, request_hash
from service.jobs.job import Destination, NewJob, Presentation, Tier, Webhook
from service.jobs.table.rows import claimed_of
from service.orders import Doorway, Mode
from tests.jobs import ALICE, POLICY, new_job

CONFIG = millrace_64()
VALIDATOR = Validator(Catalogue({CONFIG.name: CONFIG}, DEFAULT_MODEL), Limits())
CHECKS = JobChecks(VALIDATOR, POLICY, new_seed=lambda: 7)


def violations(new: NewJob, principal: Principal = ALICE, checks: JobChecks = CHECKS) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        checks.draft(principal, new, "j1")
    return {violation.field: violation.description for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("changes", "field", "limit"),
    [
        ({"presentation": Presentation(1281, 720)}, "width", "must be an even number of pixels from 16 to 3840; got 1281"),
        ({"presentation": Presentation(1280, 8192)}, "height", "must be an even number of pixels from 16 to 3840; got 8192"),
        ({"presentation": Presentation(1280, 0)}, "height", "must be an even number of pixels from 16 to 3840; got 0"),
        ({"ttl_s": 0.0}, "ttl_s", "must be more than 0 and at most 5000 seconds; got 0"),
        ({"ttl_s": float("nan")}, "ttl_s", "got nan"),
        ({"ttl_s": 5001.0}, "ttl_s", "got 5001"),
        ({"idempotency_key": "k" * 257}, "idempotency_key", "must be at most 256 printable characters; got 257"),
        ({"idempotency_key": "a\x00b"}, "idempotency_key", "got 3"),
        ({"idempotency_key": "\ud800"}, "idempotency_key", "got 1"),
        ({"labels": {"a": "x" * 20_000}}, "labels", "must be at most 16384 characters of JSON; got 20008"),
        ({"webhook": Webhook("https://x/" + "a" * 3000)}, "webhook", "must be at most 2048 characters; got 3010"),
        ({"destination": Destination("file:///etc")}, "destination", "must be s3://BUCKET/PREFIX"),
        ({"destination": Destination("s3://")}, "destination", "must be s3://BUCKET/PREFIX"),
        ({"destination": Destination("s3://[x/y")}, "destination", "must be s3://BUCKET/PREFIX"),
        ({"seconds": 601.0}, "seconds", "must be a number from more than 0 to 600; got 601"),
        ({"seconds": 0.0}, "seconds", "must be a number from more than 0 to 600; got 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_limit_and_value(changes: dict[str, Any], field: str, limit: str) -> None:
    found = violations(new_job(**changes))
    assert list(found) == [field]
    assert limit in found[field]


def test_fields_have_the_callers_names_and_all_are_checked_at_once() -> None:
    doorway = Doorway(Mode.STREAM, prefix="body.", names={"seconds": "duration", "width": "size"})

    def hook(principal: Principal, new: NewJob, problems: Problems) -> None:
        problems.add("hook", "is blocked")

    also = JobChecks(VALIDATOR, POLICY, new_seed=lambda: 7, also=[hook])
    found = violations(new_job("", seconds=999.0, doorway=doorway, presentation=Presentation(2, 2)), checks=also)
    assert set(found) == {"body.prompt", "duration", "size", "body.height", "hook"}


def test_a_job_may_be_longer_than_a_file_that_its_caller_waits_for() -> None:
    two_minutes = new_job(seconds=120.0)
    draft = CHECKS.draft(ALICE, two_minutes, "j1")
    assert (draft.seconds, draft.order.doorway.mode) == (120.0, Mode.JOB)
    with pytest.raises(InvalidRequest, match="from more than 0 to 60; got 120"):
        VALIDATOR.order(two_minutes.request, Doorway(Mode.FILE), "s1", 7)
    shorter = JobChecks(Validator(Catalogue({CONFIG.name: CONFIG}, DEFAULT_MODEL), Limits(), max_job_seconds=90.0), POLICY, lambda: 7)
    assert "to 90; got 120" in violations(two_minutes, checks=shorter)["seconds"]


def test_a_credential_may_be_for_some_models_and_lengths() -> None:
    with pytest.raises(Forbidden, match="model must be one of other"):
        CHECKS.draft(replace(ALICE, models=frozenset({"other"})), new_job(), "j1")
    assert "at most 2 with this credential; got 4" in violations(new_job(), replace(ALICE, max_seconds=2.0))["seconds"]
    CHECKS.draft(replace(ALICE, models=frozenset({CONFIG.name}), max_seconds=4.0), new_job(), "j1")


def test_a_bucket_must_be_the_callers() -> None:
    new = new_job(destination=Destination("s3://theirs/videos"))
    with pytest.raises(Forbidden, match="destination must be in a bucket of this credential; got theirs"):
        CHECKS.draft(ALICE, new, "j1")
    CHECKS.draft(replace(ALICE, buckets=frozenset({"theirs"})), new, "j1")


def test_a_check_may_forbid() -> None:
    def check(principal: Principal, new: NewJob, problems: Problems) -> None:
        raise Forbidden("not today")

    with pytest.raises(Forbidden, match="not today"):
        JobChecks(VALIDATOR, POLICY, new_seed=lambda: 7, also=[check]).draft(ALICE, new_job(), "j1")


@pytest.mark.parametrize("changes", [{}, {"guidance": 1.0}, {"steps": 6, "seed": 3}, {"later_prompts": ((2.0, "a blue ball"),)}])
def test_what_a_worker_reads_passes_the_same_checks_and_makes_the_same(changes: dict[str, Any]) -> None:
    draft = CHECKS.draft(ALICE, new_job(**changes), "j1")

    class Row:
        """The row, as the table has it after a claim."""

        def __getattr__(self, name: str) -> Any:
            begun = {"status": "running", "fence": 1, "lease_until": 9.0}
            return (draft.row(1.0, "", None) | begun).get(name)

    claimed = claimed_of(Row())
    again = VALIDATOR.order(claimed.request, claimed.doorway, "j1", 99)
    assert again.request == draft.order.request


def test_the_hash_is_of_what_is_asked_for() -> None:
    base = new_job(footage=("image", b"x"), idempotency_key="k")
    same = [base, replace(base, shown={"a": 1}), replace(base, idempotency_key="other")]
    others = [
        replace(base, request=replace(base.request, prompt="b")),
        replace(base, request=replace(base.request, seed=1)),
        replace(base, request=replace(base.request, later_prompts=((2.0, "b"),))),
        replace(base, request=replace(base.request, footage=("image", b"y"))),
        replace(base, presentation=Presentation(64, 64)),
        replace(base, labels={"a": "b"}),
        replace(base, tier=Tier.FLEX),
        replace(base, parent="j0"),
        replace(base, ttl_s=5.0),
        replace(base, webhook=Webhook("https://x")),
        replace(base, destination=Destination("s3://a/b")),
    ]
    assert len({request_hash(each) for each in same}) == 1
    assert len({request_hash(each) for each in [base, *others]}) == 1 + len(others)


def test_a_prompt_that_no_database_can_hold_is_refused_and_not_a_defect() -> None:
    assert "prompt" in violations(new_job("a\ud800b"))

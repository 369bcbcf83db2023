"""Batches: many jobs out of one JSONL file, and a manifest of what became of them. Pure.

A row is an object with a prompt, and any of the fields in `FIELDS`. Errors name the row, from 0, and the field: `rows[3].seconds`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Problems
from service.jobs.desk.drafts import request_hash
from service.jobs.job import Job, JobStatus, NewJob, Presentation, Tier
from service.orders import Doorway, Mode, VideoRequest

MAX_ROWS = 10_000
MAX_BYTES = 32 * 1024 * 1024
FIELDS = ("prompt", "model", "seconds", "seed", "size", "steps", "guidance", "negative_prompt", "tier", "labels")
_DEFAULT_SECONDS = 4.0
_MOST_VIOLATIONS = 20  # of a file in which all rows are wrong, nobody reads more
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_SEEDS = range(2**64)
_MOST_WHOLE = 2**53  # beyond it, a float is another number


@dataclass(frozen=True, slots=True)
class Batch:
    """How far a batch is. Jobs that were deleted do not count.

    Attributes:
        counts: jobs by status, of those that there are any of.
    """

    id: str
    created_at: float
    counts: Mapping[JobStatus, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def over(self) -> bool:
        return all(status.over for status in self.counts)


def read_rows(data: bytes, door: str) -> list[NewJob]:
    """The jobs of a JSONL file. Empty lines do not count.

    Args:
        door: named by the jobs.

    Raises:
        InvalidRequest: with what is wrong, as far as the first rows that are.
    """
    problems = Problems()
    if len(data) > MAX_BYTES:
        problems.add("rows", f"must be at most {MAX_BYTES} bytes; got {len(data)}")
        problems.check()
    lines = [line for line in data.splitlines() if line.strip()]
    if not 0 < len(lines) <= MAX_ROWS:
        problems.add("rows", f"must be from 1 to {MAX_ROWS}; got {len(lines)}")
        problems.check()
    found: list[NewJob] = []
    wrong = Wrong()
    for number, line in enumerate(lines):
        with wrong:
            found.append(_row(line, number, door))
    wrong.check()
    return found


class Wrong:
    """Collects what is wrong with rows, `with wrong: ...` for each of them; of many violations the first ones."""

    def __init__(self) -> None:
        self._first: list[FieldViolation] = []

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if not isinstance(error, InvalidRequest):
            return False
        self._first += error.violations[: _MOST_VIOLATIONS - len(self._first)]
        return True

    def check(self) -> None:
        """Raises InvalidRequest if there is anything."""
        if self._first:
            raise InvalidRequest(tuple(self._first))


def batch_hash(rows: Sequence[NewJob]) -> str:
    """The same for batches that an idempotency key may stand for."""
    return hashlib.sha256("".join(request_hash(row) for row in rows).encode()).hexdigest()


def manifest_line(job: Job) -> str:
    """What became of one row, as JSON without a line break."""
    line: dict[str, Any] = {
        "row": job.batch_row, "id": job.id, "status": job.status.value, "prompt": job.prompt, "model": job.model, "seed": job.seed,
        "seconds": job.seconds, "labels": dict(job.labels),
    }  # fmt: skip
    if job.status is JobStatus.COMPLETED:
        line |= {"size_bytes": job.size_bytes, "sha256": job.sha256}
    if job.error is not None:
        line["error"] = {"code": job.error.code, "message": job.error.message}
    return json.dumps(line)


def _row(line: bytes, number: int, door: str) -> NewJob:
    doorway = Doorway(Mode.JOB, prefix=f"rows[{number}].")
    problems = Problems()
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        problems.add(f"rows[{number}]", f"must be a JSON object; got {line[:64]!r}")
        problems.check()
    for name in sorted(row.keys() - set(FIELDS))[:_MOST_VIOLATIONS]:
        problems.add(doorway.path(name[:64]), f"must be one of {', '.join(FIELDS)}")
    take = _Fields(row, doorway, problems)
    request = VideoRequest(
        prompt=take("prompt", "", "text", _is_text), model=take("model", "", "text", _is_text),
        seconds=float(take("seconds", _DEFAULT_SECONDS, "a number", _is_number)),
        seed=take("seed", None, "a whole number of 64 bits", lambda value: _is_whole(value) and value in _SEEDS),
        steps=take("steps", 0, "a whole number", lambda value: _is_whole(value) and 0 <= value < 2**31),
        guidance=take("guidance", None, "a number", _is_number), negative_prompt=take("negative_prompt", None, "text", _is_text),
    )  # fmt: skip
    size = take("size", "", "WIDTHxHEIGHT", lambda value: _is_text(value) and _SIZE.fullmatch(value) is not None)
    tiers = {tier.name.lower(): tier for tier in Tier}
    tier = take("tier", "default", f"one of {', '.join(tiers)}", lambda value: _is_text(value) and value in tiers)
    labels = take("labels", {}, "an object of texts", lambda value: isinstance(value, dict) and all(map(_is_text, value.values())))
    problems.check()
    width, height = map(int, size.split("x")) if size else (0, 0)
    return NewJob(door=door, request=request, doorway=doorway, presentation=Presentation(width, height), labels=labels, tier=tiers[tier])


class _Fields:
    """Takes fields of a row, each with its default where it is missing or null."""

    def __init__(self, row: Mapping[str, Any], doorway: Doorway, problems: Problems) -> None:
        self._row, self._doorway, self._problems = row, doorway, problems

    def __call__(self, name: str, default: Any, kind: str, fits: Callable[[Any], bool]) -> Any:
        value = self._row.get(name)
        if value is None:
            return default
        if not fits(value):
            self._problems.add(self._doorway.path(name), f"must be {kind}; got {json.dumps(value)[:64]}")
            return default
        return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (_is_whole(value) and abs(value) <= _MOST_WHOLE)

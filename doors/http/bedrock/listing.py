"""Reads what ListAsyncInvokes asks for. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from doors.http.bedrock import aws
from doors.http.given import shown
from service.checks import Problems
from service.jobs.job import JobQuery, JobStatus

_PAGE, _MAX_PAGE = 100, 1000
_TOKEN = re.compile(r"[a-z0-9]{12}", re.ASCII)
_STATUSES = {
    "InProgress": frozenset({JobStatus.QUEUED, JobStatus.RUNNING}),
    "Completed": frozenset({JobStatus.COMPLETED}),
    "Failed": frozenset({JobStatus.FAILED, JobStatus.CANCELLED}),
}


class Parameters(Protocol):
    """Of a query string."""

    def get(self, key: str, /) -> str | None: ...


def query_of(parameters: Parameters, door: str) -> JobQuery:
    """The query for jobs of `door`. Raises InvalidRequest, with everything that is wrong."""
    problems = Problems()

    def read(name: str, sound: Callable[[str], bool], limit: str) -> str | None:
        text = parameters.get(name)
        if text is None or text == "":
            return None
        if not sound(text):
            problems.add(name, f"must be {limit}; got {shown(text)}")
            return None
        return text

    def moment(name: str) -> float | None:
        text = read(name, lambda text: aws.seconds_of(text) is not None, "a time in ISO 8601")
        return None if text is None else aws.seconds_of(text)

    limit = read("maxResults", lambda text: _whole(text) and 1 <= int(text) <= _MAX_PAGE, f"a whole number from 1 to {_MAX_PAGE}")
    status = read("statusEquals", lambda text: text in _STATUSES, f"one of {', '.join(_STATUSES)}")
    after = read("nextToken", lambda text: _TOKEN.fullmatch(text) is not None, "the nextToken of a page before")
    read("sortBy", lambda text: text == "SubmissionTime", "SubmissionTime")
    order = read("sortOrder", lambda text: text in {"Ascending", "Descending"}, "Ascending or Descending")
    since, until = moment("submitTimeAfter"), moment("submitTimeBefore")
    problems.check()
    return JobQuery(
        after=after or "", limit=int(limit) if limit else _PAGE, ascending=order == "Ascending",
        statuses=_STATUSES[status] if status else frozenset(), door=door, since=since, until=until,
    )  # fmt: skip


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_PAGE))

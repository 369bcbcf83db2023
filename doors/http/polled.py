"""What callers ask for again and again: rendered once, and sent as it is until it changes."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from service.jobs.job import Job

_MOST = 4096
_MOST_BYTES = 16 * 1024


class Polled:
    """Answers that show one job. The desk returns the same object as long as a job does not change, and its answer is the same one then.

    Args:
        render: makes the answer. It depends on the job alone, and nobody changes it.
        most: answers that are kept; beyond them, those that were made first go.
    """

    def __init__(self, render: Callable[[Job], Response], most: int = _MOST) -> None:
        self._render = render
        self._most = most
        self._kept: dict[str, tuple[Job, Response]] = {}

    def answer(self, job: Job) -> Response:
        kept = self._kept.get(job.id)
        if kept is not None and kept[0] is job:
            return kept[1]
        made = self._render(job)
        self._kept.pop(job.id, None)
        if len(made.body) <= _MOST_BYTES:
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[job.id] = (job, made)
        return made

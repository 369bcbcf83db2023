"""What a webhook of OpenAI's is told: the event's type, and the id to ask for."""

from __future__ import annotations

from dataclasses import replace

from doors.http.openai.videos import webhook_event
from service.jobs.job import Job, JobStatus

JOB = Job(
    id="abcdefgh0123", tenant="acme", door="openai", status=JobStatus.COMPLETED, model="millrace-64", prompt="a red circle", seconds=4.0,
    seed=5, steps=4, width=64, height=64, fps=24, created_at=100.0, updated_at=130.0, ended_at=120.5,
)  # fmt: skip


def test_a_completed_video_is_an_event_that_says_so_and_nothing_more() -> None:
    assert webhook_event(JOB) == {
        "id": "evt_abcdefgh0123_completed", "object": "event", "created_at": 120, "type": "video.completed",
        "data": {"id": "video_abcdefgh0123"},
    }  # fmt: skip


def test_every_other_end_is_a_failure() -> None:
    for status in (JobStatus.FAILED, JobStatus.CANCELLED):
        assert webhook_event(replace(JOB, status=status))["type"] == "video.failed"

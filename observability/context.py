"""What the work at hand belongs to, for exemplars and log lines. Set at the edge by whoever knows it; empty where nobody does."""

from __future__ import annotations

from contextvars import ContextVar

TRACE_ID: ContextVar[str] = ContextVar("headrace_trace_id", default="")
"""32 hexadecimal digits, as in W3C trace context; empty for none."""

SESSION_ID: ContextVar[str] = ContextVar("headrace_session_id", default="")

Work = tuple[str, str]
"""A session's id and its trace's, as they travel from one process to the next."""

NOBODY: Work = ("", "")


def work() -> Work:
    """What is being worked for here."""
    return SESSION_ID.get(), TRACE_ID.get()


def work_for(given: Work) -> None:
    """From now on, in this task, work is for this. A caller of another version may say more of it, or less."""
    for variable, value in zip((SESSION_ID, TRACE_ID), given, strict=False):
        variable.set(value)


def exemplar() -> dict[str, str] | None:
    """What a histogram's `observe` takes, so that a slow one can be looked up; None without a trace."""
    trace_id = TRACE_ID.get()
    return {"trace_id": trace_id} if trace_id else None

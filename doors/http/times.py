"""Moments, as JSON has them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(moment: float) -> str:
    """A Unix time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

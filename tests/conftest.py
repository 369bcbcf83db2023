"""For all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from observability.context import NOBODY, work_for

# How long an example takes says something about the machine, and no test depends on that.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def for_nobody() -> Iterator[None]:
    """Whoever a test worked for, the next one does not."""
    yield
    work_for(NOBODY)

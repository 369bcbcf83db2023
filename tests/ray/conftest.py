"""For all tests on a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A cluster that one file leaves behind, since something failed there, fails no other file of this process."""
    yield
    ray.shutdown()

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from doors.http.bedrock.room import BedrockRoom
from tests.core import core
from tests.unit.doors.http.fake_edge import Door, door, services
from tests.unit.doors.http.fake_jobs import FakeJobDesk


@pytest.fixture
async def bedrock(tmp_path: Path) -> AsyncGenerator[Door, None]:
    """The room over fake stages and jobs that only the test moves on."""
    async with core() as made:
        jobs = FakeJobDesk(made.intake, tmp_path)
        async with door(BedrockRoom(services(made, jobs)), made, jobs) as found:
            yield found

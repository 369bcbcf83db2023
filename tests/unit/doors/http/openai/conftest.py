from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.core import core
from tests.unit.doors.http.fake_jobs import FakeJobDesk
from tests.unit.doors.http.openai.served import Served, served


@pytest.fixture
async def openai(tmp_path: Path) -> AsyncGenerator[Served, None]:
    """The room behind the real edge, over fake stages and jobs that only the test moves on."""
    async with core() as made:
        jobs = FakeJobDesk(made.intake, tmp_path)
        async with served(made, jobs) as client:
            yield Served(jobs, client)

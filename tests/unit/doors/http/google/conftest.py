from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from doors.http.google.room import GoogleRoom
from tests.core import core
from tests.unit.doors.http.fake_edge import Door, door, services
from tests.unit.doors.http.fake_jobs import NOW, FakeJobDesk


@pytest.fixture
async def google(tmp_path: Path) -> AsyncGenerator[Door, None]:
    async with core() as made:
        jobs = FakeJobDesk(made.intake, tmp_path)
        async with door(GoogleRoom(services(made, jobs), now=lambda: NOW), made, jobs) as found:
            yield found

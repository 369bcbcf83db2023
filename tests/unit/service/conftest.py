"""Databases for tests: a SQLite file, and a PostgreSQL server where there is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from bench.kit.postgres import WITHOUT_POSTGRES, Postgres, server_programs
from service.database.engine import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of this process."""
    programs = server_programs()
    if programs is None:
        pytest.skip(WITHOUT_POSTGRES)
    server = Postgres(programs)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/headrace.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database, None]:
    opened = await Database.open(database_url, threads=2, timeout_s=60.0)
    yield opened
    await opened.close()

"""Where the database is, as serve.yaml says it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deployments.config.application import AppConfig
from deployments.config.state import StateSettings
from service.database.place import checked_url


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/headrace/headrace.db",
        "sqlite:///headrace.db",
        "postgresql://headrace@db.internal/headrace",
        "postgresql+psycopg://u@h:5433/n?sslmode=require",
    ],
)
def test_a_database_is_a_file_or_a_server(url: str) -> None:
    assert checked_url(StateSettings(url=url).url).database


def test_there_is_none_unless_one_is_named() -> None:
    assert AppConfig().state == StateSettings(url="", password_variable="", timeout_seconds=5.0, threads=4)


@pytest.mark.parametrize("url", ["headrace.db", "sqlite://", "sqlite:///", "mysql://u@h/n", "redis://h"])
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be sqlite:///FILE or postgresql://USER@HOST/NAME, or empty"):
        StateSettings(url=url)

"""Where jobs, keys, usage and the audit log are kept."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from deployments.config.settings import Settings

# A front door reads it in full when it starts. This module is imported by the controller, so it loads no SQL.
_FORM = re.compile(r"sqlite:///.+|postgresql(\+psycopg)?://.+")


class StateSettings(Settings):
    """The database that all front doors share; see docs/database.md.

    Attributes:
        url: `sqlite:///FILE` for one node, or `postgresql://USER@HOST/NAME`; empty: none, and so no jobs, keys and usage.
        password_variable: environment variable of the front doors that holds the database's password, which then stands in no file.
        timeout_seconds: how long a call waits for a database that is away, and how long one statement may take.
        threads: of each front door, that run SQL.
    """

    url: str = ""
    password_variable: str = ""
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    threads: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("url")
    @classmethod
    def _names_a_database(cls, url: str) -> str:
        if url and not _FORM.fullmatch(url):
            raise ValueError(f"must be sqlite:///FILE or postgresql://USER@HOST/NAME, or empty; got {url!r}")
        return url

"""Opens the database of a front door, if its configuration names one."""

from __future__ import annotations

import os

from deployments.config.application import AppConfig
from service.database.engine import Database


async def database(config: AppConfig) -> Database | None:
    """What jobs, keys and usage are kept in; None where the configuration names nothing.

    Raises:
        DatabaseUnusable: says what to change.
        ValueError: the variable of the password is not set.
    """
    settings = config.state
    if not settings.url:
        return None
    password: str | None = None
    if settings.password_variable and not (password := os.environ.get(settings.password_variable)):
        variable = settings.password_variable
        raise ValueError(f"state.password_variable must name a variable of the front doors' environment; {variable} is not set")
    return await Database.open(settings.url, password, threads=settings.threads, timeout_s=settings.timeout_seconds)

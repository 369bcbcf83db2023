"""Makes a front door's ledger and audit log of its settings."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.config.application import AppConfig
from deployments.config.usage import UsageSettings
from observability.metrics import Metrics
from service.clock import Clock
from service.ledger.books import Books, BooksPolicy
from service.ledger.events import FolderSink, HttpSink, Sink

if TYPE_CHECKING:
    from service.database.engine import Database

# After its time to live, a session cannot be resumed. A write that was delayed may still come then.
_MARGIN_S = 60.0


def books(
    config: AppConfig, database: Database | None, metrics: Metrics, clock: Clock, environment: Mapping[str, str] | None = None
) -> Books:
    """Raises ValueError: the variable of the token is not set."""
    settings = config.usage
    sink = None if database is None else _sink(settings, os.environ if environment is None else environment)
    policy = BooksPolicy(write_every_s=settings.write_seconds, settle_s=config.session_store.ttl_seconds + _MARGIN_S)
    return Books(database, sink, policy, metrics, clock)


def _sink(settings: UsageSettings, environment: Mapping[str, str]) -> Sink | None:
    match settings.events:
        case "none":
            return None
        case "folder":
            return FolderSink(Path(settings.folder), f"{socket.gethostname()}-{secrets.token_hex(4)}", time.time)
        case "http":
            headers = {}
            if variable := settings.token_variable:
                if not (token := environment.get(variable)):
                    raise ValueError(f"usage.token_variable must name a variable of the front doors' environment; {variable} is not set")
                headers["Authorization"] = f"Bearer {token}"
            return HttpSink(settings.url, headers)

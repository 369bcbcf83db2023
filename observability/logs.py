"""Log lines of a replica: our packages' go where Serve's go, in its encoding, and all of them say of which session and trace they are.

With `encoding: JSON` in `serve.yaml`'s `logging_config` each line is an object; `session_id` and `trace_id` stand beside the deployment and
the replica that Serve adds. Without this, what our packages log would only reach a replica's standard error, as text. A background task
that Serve starts in the course of some session's call, such as a router's, goes on under the ids of that session.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from observability.context import SESSION_ID, TRACE_ID

PACKAGES = ("deployments", "doors", "service", "observability", "autoscaling", "model_core")
SERVE_LOGGER = "ray.serve"

_FIELDS = (("session_id", SESSION_ID), ("trace_id", TRACE_ID))


def set_up_logs(packages: Sequence[str] = PACKAGES, destination: str = SERVE_LOGGER) -> None:
    """Once in each process, after Serve has set up its own logger."""
    say_context()
    serve = logging.getLogger(destination)
    for package in packages:
        logger = logging.getLogger(package)
        logger.handlers = [_Forward(serve)]
        logger.propagate = False
        logger.setLevel(serve.getEffectiveLevel())


def say_context() -> None:
    """Every record of this process gets the ids of the work at hand. Calling it again does nothing."""
    factory = logging.getLogRecordFactory()
    if isinstance(factory, _WithContext):
        return
    logging.setLogRecordFactory(_WithContext(factory))


class _WithContext:
    """`factory`, and the ids as fields of the record where there are any."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record: logging.LogRecord = self._factory(*args, **kwargs)
        for name, variable in _FIELDS:
            if value := variable.get():
                setattr(record, name, value)
        return record


class _Forward(logging.Handler):
    """To another logger's handlers, whichever it has by then."""

    def __init__(self, destination: logging.Logger) -> None:
        super().__init__()
        self._destination = destination

    def emit(self, record: logging.LogRecord) -> None:
        self._destination.handle(record)

"""What a session is told when a chunk of it could not be made, on a device that is sound."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from model_core.errors import ChunkFailed, HeadraceError, SessionBroken
from model_core.probe import Probe
from model_core.types import SessionContext

log = logging.getLogger(__name__)


def failed(context: SessionContext, chunk: int, error: Exception) -> ChunkFailed | SessionBroken:
    """`ChunkFailed` the first time, so that the chunk is tried once more; then `SessionBroken`, because it is not the device.

    The error's cause stays here, in the log: what it holds may not travel.
    """
    told = f"chunk {chunk} of session {context.session_id} could not be made: {type(error).__name__}: {error}"
    log.warning("%s", told, exc_info=error)
    return SessionBroken(f"{told}, tried twice") if context.suspect_chunk == chunk else ChunkFailed(told, chunk)


@contextmanager
def blamed(probe: Probe, context: SessionContext, chunk: int) -> Iterator[None]:
    """What is raised within is the device's fault, where `probe` says so, or else the session's.

    Raises:
        DeviceBroken: see `Probe.check`.
        ChunkFailed, SessionBroken: see `failed`.
    """
    try:
        yield
    except HeadraceError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a device or a family's code raises
        probe.check(error)
        raise failed(context, chunk, error) from None

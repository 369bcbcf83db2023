"""For all tests."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import HealthCheck, settings

from observability.context import NOBODY, work_for
from tests.instruction_sets import beside, flags, missing
from tests.patient_loop import PatientLoop

# How long an example takes says something about the machine, and no test depends on that.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# One thread for the sums of each process, as replicas have: processes beside each other would wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Read when gRPC is first imported. With its handlers of fork, a process that Ray starts while a test's client is busy may abort.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# PyTorch would do as it is told, and the first kernel would kill the process.
if reason := missing(os.environ.get("ATEN_CPU_CAPABILITY"), flags()):
    pytest.exit(f"skipped: {reason}", returncode=0)
for variable, held_to in beside(os.environ.get("ATEN_CPU_CAPABILITY")).items():
    os.environ.setdefault(variable, held_to)

# A run in the background of a shell ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """How long the machine lets a test stand still is no part of it, except where it says so."""
    return {"real": asyncio.SelectorEventLoop} if item.get_closest_marker("real_time") else {"patient": PatientLoop}


@pytest.fixture(autouse=True)
def for_nobody() -> Iterator[None]:
    """Whoever a test worked for, the next one does not."""
    yield
    work_for(NOBODY)

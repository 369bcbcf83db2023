from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from headrace.cli import app
from tests.fakes import FakeStages
from tests.served import serving


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


async def test_a_replay_is_recorded_and_has_the_same_digest_each_time(tmp_path: Path) -> None:
    out = tmp_path / "replay.npy"
    async with serving(FakeStages(enhances=True, keep_chunks=24)) as served:
        events: list[Any] = [event async for event in served.client.stream("a blue circle", seconds=2.0, seed=1)]
        asked = ("replay", events[0].resume_token, "--seconds", "1", "--slow", "4", "--address", served.address)
        first = await asyncio.to_thread(invoked, *asked, "-o", str(out))
        second = await asyncio.to_thread(invoked, *asked)
        wrong = await asyncio.to_thread(invoked, "replay", "nobody", "--address", served.address)
    assert first.exit_code == 0, first.output
    assert "frames       96" in first.stdout
    assert first.stdout == second.stdout
    assert np.load(out).shape == (96, 64, 64, 3)
    assert wrong.exit_code != 0

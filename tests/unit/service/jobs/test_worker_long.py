"""What long jobs need of their workers: checkpoints in pieces, and many prompts that are paid for once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from model_core.types import StageTiming, TextEmbedding
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.job_queue import POLICY
from tests.unit.service.jobs.test_worker import REQUEST, SLOW, gated, over, undisturbed


class TimedEncoder(FakeEncoder):
    """Says of everything that it embeds that it took the device a fifth of a second."""

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        return replace(await super().encode(prompt, numerics), timing=StageTiming("text_encoder", 0.0, 0.2, 0.2))


async def test_the_text_stage_is_billed_for_all_prompts_once_however_many_workers_embed_them(tmp_path: Path) -> None:
    gate, encoder = asyncio.Semaphore(0), TimedEncoder()
    stages = FakeStages(denoiser=FakeDenoiser(FakeStages().config, gate=gate), encoder=encoder)
    async with over(tmp_path, stages) as made:
        job = made.queue.add(replace(REQUEST, later_prompts=((0.5, "a blue square"), (1.5, "a green star"))))
        async with made.working(SLOW):
            for _ in range(2):
                gate.release()
            await eventually(lambda: made.queue.rows[job].frames_done > 0)
            embedded = encoder.calls
            gate.release()
        assert embedded >= 3
        for _ in range(100):
            gate.release()
        async with made.working():
            [row] = await made.queue.over(job)
        assert encoder.calls > embedded
        assert row.finished is not None
        assert row.finished.usage.text_s == pytest.approx(0.2 * embedded)


async def test_a_checkpoint_is_written_and_read_in_pieces(tmp_path: Path) -> None:
    whole = await undisturbed(tmp_path / "whole")
    stages, gate = gated()
    async with over(tmp_path / "broken", stages) as made:
        job = made.queue.add(REQUEST)
        async with made.working(replace(POLICY, piece_bytes=500)):
            for _ in range(3):
                gate.release()
            await eventually(lambda: bool(made.queue.checkpoints))
        parts = made.queue.checkpoints[-1].parts
        sizes = [len(await made.artifacts.read(part)) for part in parts]
        assert len(set(parts)) == len(parts) > 3
        assert max(sizes) == 500
        for _ in range(100):
            gate.release()
        async with made.working():
            await made.queue.over(job)
        assert await made.video(job) == whole

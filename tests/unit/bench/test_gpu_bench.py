"""The script for NVIDIA GPUs still runs, at a tiny size on the CPU; its figures come from hardware alone."""

from __future__ import annotations

from bench.costs.gpu import DRY, ceiling_tflops, measure_decoder, measure_dit


def test_every_measurement_of_the_script_runs() -> None:
    assert ceiling_tflops(DRY) > 0
    (row,) = measure_dit(DRY, 2, [1], 1, compiled=False, ceiling=1.0)
    assert (row["window_latent_frames"], row["peak_gib"]) == (9, 0.0)
    assert row["chunk_ms"] > row["step_ms"] > 0
    assert [row["batch"] for row in measure_decoder(DRY, [1, 2], 1)] == [1, 2]

"""The names of the stages. Configuration, timings, graphs, reports and metrics spell them so."""

from __future__ import annotations

from enum import StrEnum

ENHANCER = "enhancer"  # which sessions can do without, and most do: no stage that the plan of the others counts on


class Stage(StrEnum):
    """A stage of the pipeline."""

    TEXT_ENCODER = "text_encoder"
    DENOISER = "denoiser"
    DECODER = "decoder"

"""The names of the stages. Configuration, timings, graphs, reports and metrics spell them so."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage of the pipeline."""

    TEXT_ENCODER = "text_encoder"
    DENOISER = "denoiser"
    DECODER = "decoder"

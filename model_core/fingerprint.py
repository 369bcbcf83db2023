"""The fingerprint of a model: a digest of everything that changes its frames, and of nothing else."""

from __future__ import annotations

import hashlib
import json

from model_core.config import ModelConfig

FINGERPRINT_VERSION = 2  # raised when equal configurations make other frames than they did


def enhancer_fingerprint(config: ModelConfig) -> str:
    """Equal where equal decoded frames are enhanced to equal frames; empty for a model without an enhancer."""
    if not config.enhancer:
        return ""
    return hashlib.sha256(json.dumps([config.enhancer, config.execution.enhancer.identity()], sort_keys=True).encode()).hexdigest()


def model_fingerprint(config: ModelConfig) -> str:
    """Equal for configurations that make equal frames: by content, weights included.

    Where weights are not pinned they are read, so this is not for an event loop.

    Raises:
        WeightsError: they cannot be read.
    """
    return hashlib.sha256(json.dumps([FINGERPRINT_VERSION, config.identity()], sort_keys=True).encode()).hexdigest()

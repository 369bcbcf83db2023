"""What each stage counts of its own work, as frozen values. Loads without torch.

Replicas send these through `autoscaling.reports`, so a field that is added here needs a default there: a replica of the version
before does not report it. Its doc line says what is counted; `autoscaling.reports` says how it travels.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ForwardProfile:
    """Seconds of a denoise step and of a commit in each of `buckets`, measured once; all empty before that.

    `autoscaling.capacity.profile.CapacityProfile` says from it how many sessions a replica serves. What a step takes now, for the step
    scheduler, is `model_core.engine.step_scheduler.StepCosts`.
    """

    buckets: tuple[int, ...] = ()
    step_s: tuple[float, ...] = ()
    commit_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TextEncoderStatistics:
    """Counts since the encoder was made.

    Attributes:
        hits: prompts answered from the cache.
        joined: prompts that waited for an equal prompt already being encoded.
        misses: prompts that went through the model.
        cached: prompts in the cache now.
        in_flight: distinct prompts being encoded now.
        service_s: seconds spent in tokenizer and model.
        footage_hits, footage_misses, footage_service_s: the same of images and videos; who joined a run counts as a hit.
    """

    hits: int
    joined: int
    misses: int
    cached: int
    in_flight: int
    service_s: float
    footage_hits: int = 0
    footage_misses: int = 0
    footage_service_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DenoiserStatistics:
    """What a denoiser holds and has done.

    Attributes:
        sessions, waiting, free_slots: now.
        undelivered: finished chunks whose reader has not taken them, now.
        steps, rows, chunks: forwards, rows in them, chunks finished, since the start.
        busy_s: seconds the device was busy, since the start.
        expected_s: what that would have been by `profile`.
        profile: measured before the first session.
    """

    sessions: int
    waiting: int
    free_slots: int
    undelivered: int
    steps: int
    rows: int
    chunks: int
    busy_s: float
    expected_s: float
    profile: ForwardProfile = field(default_factory=ForwardProfile)


@dataclass(frozen=True, slots=True)
class DecoderStatistics:
    """Sessions open now; chunks decoded and seconds on the device since the start."""

    sessions: int
    chunks: int
    busy_s: float


@dataclass(frozen=True, slots=True)
class EnhancerStatistics:
    """Sessions open now; chunks enhanced and seconds on the device since the start."""

    sessions: int
    chunks: int
    busy_s: float


StageStatistics = TextEncoderStatistics | DenoiserStatistics | DecoderStatistics | EnhancerStatistics

"""From demand to replicas of one stage, by what its replicas have been measured to do."""

from __future__ import annotations

import math

from autoscaling.capacity.estimate import Measured
from autoscaling.capacity.profile import CapacityProfile
from autoscaling.scaling.types import ScalingConfig

# Of the objective for the first frame, a prompt may wait this share for its turn at the text encoder...
_TEXT_WAIT_SHARE = 0.1
# ...and the denoiser must have made the first chunk within this one.
_DENOISE_SHARE = 0.7
_WAIT_QUANTILE = 0.99
# Coefficient of variation, squared, of the time that one takes.
_ENCODE_CV2 = 0.0


def denoise_sessions(measured: Measured, config: ScalingConfig, steps: int) -> float:
    """Sessions of `steps` steps that one denoise replica holds: in real time, and so that a first chunk is not late. At least 1.

    Replicas of one profile share their correction: what one of them loses to its neighbours today, another loses tomorrow.
    """
    if not measured.denoise:
        return float(config.prior_sessions)
    kinds: dict[tuple[CapacityProfile | None, int], list[float]] = {}
    kind: tuple[CapacityProfile | None, int] | None = None
    alike: list[float] = []
    for name, report in measured.denoise.items():
        if kind != (report.profile, report.slots):  # mostly they are all alike
            kind = report.profile, report.slots
            alike = kinds.setdefault(kind, [])
        alike.append(measured.correction[name])
    budget_s = min(config.budget_s, _DENOISE_SHARE * config.ttff_s)
    sessions = 0
    for (profile, slots), corrections in kinds.items():
        correction = sum(corrections) / len(corrections)
        sessions += len(corrections) * (slots if profile is None else profile.capacity(steps, budget_s, correction, slots))
    return max(1.0, sessions / len(measured.denoise))


def decode_sessions(measured: Measured, config: ScalingConfig) -> float:
    """Sessions that one decode replica keeps up with and holds, on average over many; at least 1.

    Not rounded: a noisy measurement would flip it.
    """
    sessions = config.prior_sessions if measured.chunk_decode is None else max(1.0, config.budget_s / measured.chunk_decode)
    return float(min(sessions, config.decode_slots or sessions))


def encode_replicas(prompts_per_s: float, encode_s: float, ttff_s: float, dispersion: float = 1.0) -> int:
    """Fewest text replicas at which 99 of 100 prompts wait no longer than their share of the first frame's time.

    The wait of a G/G/c queue beyond its p-quantile, by the M/M/c tail scaled with the coefficients of variation (Allen and Cunneen's
    approximation, as in `docs/adr/0007`). At little load that says nothing of clumps: as many at once as `dispersion` must not wait longer
    either.
    """
    if prompts_per_s <= 0:
        return 1
    offered, longest_s = prompts_per_s * encode_s, _TEXT_WAIT_SHARE * ttff_s
    replicas = max(math.floor(offered) + 1, math.ceil((dispersion - 1) * encode_s / longest_s))
    while _wait_s(replicas, offered, encode_s, dispersion) > longest_s:
        replicas += 1
    return replicas


def _wait_s(servers: int, offered: float, service_s: float, arrival_cv2: float) -> float:
    """The wait's p-quantile with `offered` erlangs on `servers`, which must be more."""
    waits = erlang_c(servers, offered)
    if waits <= 1 - _WAIT_QUANTILE:
        return 0.0
    scale = (arrival_cv2 + _ENCODE_CV2) / 2
    return scale * service_s / (servers - offered) * math.log(waits / (1 - _WAIT_QUANTILE))


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival at an M/M/c queue waits; 1 where it is not stable."""
    if offered >= servers:
        return 1.0
    blocked = 1.0  # Erlang B, by its recursion
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))

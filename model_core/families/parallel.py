"""A `Sampler` on several ranks: each has its own, with a share of the network, and all are told the same calls in the same order.

So a leg's state is never gathered: a rank keeps its share of every cache, and meets the others only inside the graphs. Rank 0 answers.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import sys
import weakref
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from model_core.config import EngineConfig, ModelConfig
from model_core.errors import FieldViolation
from model_core.families.interface import Leg, RestylingSampler, Sampler
from model_core.families.registry import family
from model_core.runtimes.ranks import Followers, meet
from model_core.types import Latents, SessionContext, TextEmbedding

log = logging.getLogger(__name__)


class _Shared:
    """A leg that has a counterpart of the same number in every rank."""

    def __init__(self, number: int, leg: Leg) -> None:
        self.number, self.leg = number, leg


class ParallelSampler:
    """See the module's docstring."""

    def __init__(self, config: ModelConfig, engine: EngineConfig) -> None:
        """Start the other ranks, and with them load and warm everything.

        Raises:
            RuntimeUnavailable: the network cannot be shared by so many.
        """
        runtime = config.execution.denoiser
        self._followers = Followers(runtime, __name__)
        self._followers.tell((config, engine))
        self._numbers, self._forgotten = itertools.count(), list[int]()
        meet(0, runtime.ranks, self._followers.place)
        self._own: Sampler = family(config.family).parts.sampler(config, engine)

    def warm(self) -> None:
        self._tell("warm")
        self._own.warm()

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        return self._own.violations(context)

    def blank(self) -> TextEmbedding:
        return self._own.blank()

    def group(self, leg: _Shared) -> Hashable:
        return self._own.group(leg.leg)

    def latents(self, leg: _Shared) -> Latents:
        return self._own.latents(leg.leg)

    def open(self, context: SessionContext) -> _Shared:
        number = next(self._numbers)
        self._tell("open", number, context)
        shared = _Shared(number, self._own.open(context))
        weakref.finalize(shared, self._forgotten.append, number)
        return shared

    def start(self, leg: _Shared, chunk: int) -> None:
        self._tell("start", leg.number, chunk)
        self._own.start(leg.leg, chunk)

    def start_from(self, leg: _Shared, chunk: int, source: Latents, strength: float) -> int:
        if not isinstance(self._own, RestylingSampler):
            raise TypeError("the family's sampler restyles nothing")
        self._tell("start_from", leg.number, chunk, source, strength)
        return self._own.start_from(leg.leg, chunk, source, strength)

    def step(self, legs: Sequence[_Shared]) -> None:
        self._tell("step", [leg.number for leg in legs])
        self._own.step([leg.leg for leg in legs])

    def commit(self, legs: Sequence[_Shared]) -> None:
        self._tell("commit", [leg.number for leg in legs])
        self._own.commit([leg.leg for leg in legs])

    def _tell(self, call: str, *arguments: object) -> None:
        forgotten = [self._forgotten.pop() for _ in range(len(self._forgotten))]
        self._followers.tell((forgotten, call, *arguments))


def follow(sampler: Sampler, messages: Any) -> None:
    """Do what rank 0 says, until it says no more."""
    legs: dict[int, Leg] = {}
    while True:
        try:
            forgotten, call, *arguments = pickle.load(messages)  # noqa: S301  of the process that started this one
        except EOFError:
            return
        for number in forgotten:
            legs.pop(number, None)
        try:
            _do(sampler, legs, call, arguments)
        except Exception:
            # What raises here raises in rank 0, too, which knows whose fault it is, and goes on. If it does not, it waits for this one in
            # vain, and its watchdog tells.
            log.exception("a call of rank 0 failed: %s", call)


def _do(sampler: Sampler, legs: dict[int, Leg], call: str, arguments: list[Any]) -> None:
    match call, arguments:
        case "warm", []:
            sampler.warm()
        case "open", [number, context]:
            legs[number] = sampler.open(context)
        case "start", [number, chunk]:
            sampler.start(legs[number], chunk)
        case "start_from", [number, *given] if isinstance(sampler, RestylingSampler):
            sampler.start_from(legs[number], *given)
        case "step", [numbers]:
            sampler.step([legs[number] for number in numbers])
        case "commit", [numbers]:
            sampler.commit([legs[number] for number in numbers])


def main() -> None:
    rank, ranks, place = sys.argv[1:]
    messages = sys.stdin.buffer
    config, engine = pickle.load(messages)  # noqa: S301  of the process that started this one
    torch.set_num_threads(engine.threads)
    meet(int(rank), int(ranks), place)
    with torch.inference_mode():
        follow(family(config.family).parts.sampler(config, engine), messages)


if __name__ == "__main__":
    main()

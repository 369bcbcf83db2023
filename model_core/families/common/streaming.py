"""What the streaming families share: a leg on the device, and the forwards of `model_core.nn.wan` for the rows of one group.

A leg's text and modulations are made once, by graphs that run for one leg in one shape; rows of several legs then lie side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from model_core.diffusion.flow_match import first_step, mixed
from model_core.errors import FieldViolation
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.prompts import blank_text, text_violations
from model_core.graphs import GraphSpec
from model_core.nn.causal_dit import KeyValue, Modulation
from model_core.nn.wan import Rotary
from model_core.nn.window import filled, side_by_side
from model_core.runtimes.load import load_program
from model_core.types import Latents, SessionContext, TextEmbedding


@dataclass(slots=True, eq=False)
class StreamLeg:
    """One row of the graphs.

    Attributes:
        context: what it was opened with.
        text: keys and values a layer `[1, T, D]`.
        times: `[S + 1]`, from 1 for noise to 0, in float64.
        steps: a modulation for each step, padded to one number of them; the last row is that of a clean chunk.
        state: the family's own state.
        position: of the tokens of the chunk that is being made, `[1, N, P]`.
        chunk, step: index of that chunk; denoise steps done.
        x_t: noisy latents `[1, C, F, H, W]`.
    """

    context: SessionContext
    text: list[KeyValue]
    times: Tensor
    steps: Modulation
    state: Any = None
    position: Rotary = field(default_factory=lambda: Rotary(torch.empty(0), torch.empty(0)))
    chunk: int = 0
    step: int = 0
    x_t: Tensor = field(default_factory=lambda: torch.empty(0))


class StreamSampler(ABC):
    """A `Sampler` of chunks that see the chunks before them. A family says what it remembers of those, and what a step is.

    Rows do not mix, and where a device would round a row by its company, its runtime sees to that: see `model_core.runtimes.rows`.
    Padding rows repeat the first one; their results are dropped.
    """

    def __init__(self, config: CheckpointConfig, buckets: Sequence[int], graphs: Sequence[GraphSpec], text_width: int) -> None:
        self.config = config
        self.buckets = tuple(buckets)
        self.program = load_program(config, graphs)
        self._text_shape = (1, config.max_tokens, text_width)

    @abstractmethod
    def times(self, num_steps: int) -> Tensor:
        """`[S + 1]` from 1 for noise to 0, in float64."""

    @abstractmethod
    def modulated(self, times: Tensor, num_steps: int) -> tuple[Tensor, ...]:
        """Inputs `[R]` of the graph `modulate` for times that have been padded with zeros to R, one more than the most steps.

        The last row is that of a clean chunk.
        """

    @abstractmethod
    def remember(self, leg: StreamLeg) -> None:
        """Set `leg.state` from the context's suffix."""

    @abstractmethod
    def noise(self, leg: StreamLeg, chunk: int) -> Tensor:
        """`[1, C, F, H, W]` that `chunk` begins as, on the host."""

    @abstractmethod
    def position(self, chunk: int) -> Rotary:
        """Of the tokens of `chunk` while it is made, on the host."""

    @abstractmethod
    def advance(self, rows: Sequence[StreamLeg], x_t: Tensor, t: Tensor, t_next: Tensor, step: Modulation, position: Rotary) -> Any:
        """The ticket of one step: `[B, C, F, H, W]` at `t_next` `[B]`."""

    @abstractmethod
    def commit(self, legs: Sequence[StreamLeg]) -> None:
        """See `Sampler.commit`."""

    # -- Sampler --------------------------------------------------------------------------------------------------------------

    def warm(self) -> None:
        self.program.warm()

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        return text_violations(context, self._text_shape)

    def blank(self) -> TextEmbedding:
        return blank_text(self._text_shape)

    def open(self, context: SessionContext) -> StreamLeg:
        text = self.program.run("condition", self.program.put(torch.tensor(context.embedding.tokens))).state
        times = self.times(context.num_steps)
        padded = torch.nn.functional.pad(times, (0, self.config.max_steps - context.num_steps))
        steps: Modulation = self.program.run("modulate", *self.program.put(self.modulated(padded, context.num_steps))).state
        leg = StreamLeg(context, text, times, steps)
        self.remember(leg)
        return leg

    def start(self, leg: StreamLeg, chunk: int) -> None:
        leg.chunk, leg.step = chunk, 0
        leg.x_t = self.program.put(self.noise(leg, chunk))
        leg.position = self.program.put(self.position(chunk))

    def start_from(self, leg: StreamLeg, chunk: int, source: Latents, strength: float) -> int:
        """Mixed on the host, so that it is the same on every device."""
        self.start(leg, chunk)
        leg.step = first_step(leg.times.tolist(), strength)
        leg.x_t = self.program.put(mixed(torch.tensor(source)[None], self.noise(leg, chunk), float(leg.times[leg.step])))
        return leg.step

    def group(self, leg: StreamLeg) -> Hashable:
        return None

    def step(self, legs: Sequence[StreamLeg]) -> None:
        rows = filled(legs, self.buckets)
        step = modulation([leg.steps for leg in rows], [leg.step for leg in rows])
        t, t_next = self.program.put(tuple(torch.stack([leg.times[leg.step + after] for leg in rows]).float() for after in (0, 1)))
        x_t, position = torch.cat([leg.x_t for leg in rows]), joined([leg.position for leg in rows])
        ticket = self.advance(rows, x_t, t, t_next, step, position)
        ticket.wait()  # the engine measures what a step takes
        done: set[int] = set()
        for leg, x in zip(legs, ticket.state.split(1), strict=False):
            if id(leg) not in done:  # to warm up, a leg stands several times among them
                leg.x_t = x
                leg.step += 1
                done.add(id(leg))

    def latents(self, leg: StreamLeg) -> Latents:
        return cast("Latents", self.program.fetch(leg.x_t)[0].float().numpy().copy())


def modulation(steps: Sequence[Modulation], rows: Sequence[int]) -> Modulation:
    """Row `rows[i]` of `steps[i]`, side by side; -1 is that of a clean chunk."""
    pairs = list(zip(steps, rows, strict=True))
    return Modulation(torch.stack([made.blocks[row] for made, row in pairs]), torch.stack([made.final[row] for made, row in pairs]))


def joined(rows: Sequence[Rotary]) -> Rotary:
    return Rotary(torch.cat([row.cos for row in rows]), torch.cat([row.sin for row in rows]))


def texts(rows: Sequence[StreamLeg]) -> list[KeyValue]:
    return side_by_side([row.text for row in rows])


def row_of(slots: Sequence[KeyValue], row: int) -> list[KeyValue]:
    """Cloned, so that a row does not keep the whole batch's memory alive."""
    return [KeyValue(key[row : row + 1].clone(), value[row : row + 1].clone()) for key, value in slots]

"""What the bidirectional families share: a clip is one chunk, denoised at once, in many steps of a diffusers noise schedule.

Rows are at steps of their own, so each has a noise schedule object of its own, as a diffusers pipeline has one; a forward takes
the rows' times as a vector. A clip's log is its request: it has no chunk before it, so to go on with it elsewhere means to make
it anew from its seed, which gives the same frames.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.buckets import bucket_for
from model_core.errors import FieldViolation
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.prompts import blank_text, guidance_violations, text_violations
from model_core.families.common.skipping import Skipping
from model_core.graphs import DECODER, Bucket, GraphSpec, Inputs
from model_core.runtimes.load import load_program
from model_core.types import Latents, SessionContext, TextEmbedding

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class ClipLeg:
    """One clip under way.

    Attributes:
        context: what it was opened with.
        text: features `[G, T, D]` and mask `[G, T]`; G is 2 with guidance (the prompt, then what it leads away from), else 1.
            Clips of both kinds may be under way at once.
        schedule: the noise schedule, which some families' solvers keep state in.
        x_t: noisy latents, one row in the network's own layout.
        step: looks at the network that are done; see `ModelConfig.forwards`.
        guides: the family's own tensors, made once a leg.
        draw: what noise comes from, for this clip alone; some solvers draw more of it at each step.
        kept: what a solver keeps from step to step, where its schedule does not.
        skipping: which of its steps need no forward.
        error: what this clip's own part of a step raised, if it did; the clip does not move any more.
    """

    context: SessionContext
    text: tuple[Tensor, Tensor]
    schedule: Any
    x_t: Tensor
    step: int
    guides: dict[str, Tensor]
    draw: torch.Generator = field(default_factory=torch.Generator)
    kept: dict[str, Tensor] = field(default_factory=dict)
    skipping: Skipping = field(default_factory=Skipping)
    error: Exception | None = None

    @property
    def texts(self) -> int:
        """G."""
        return len(self.text[0])

    @property
    def scale(self) -> float:
        """Of guidance."""
        return self.context.guidance.scale

    @property
    def t(self) -> Tensor:
        """Time of the next step, a scalar; of the last one when all are done."""
        return cast("Tensor", self.schedule.timesteps[min(self.step, len(self.schedule.timesteps) - 1)])


class ClipSampler(ABC):
    """A `Sampler` of clips. A family says what noise it starts from and what its network predicts."""

    def __init__(
        self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, text_width: int, graphs: Sequence[GraphSpec]
    ) -> None:
        """`graphs` are those that `predict` runs."""
        self.config = config
        self._program = load_program(config, graphs)
        self._buckets = tuple(buckets)
        self._schedule = schedule
        self._draws = "generator" in signature(type(schedule).step).parameters
        self._text_shape = (1, config.max_tokens, text_width)

    @abstractmethod
    def noise(self, draw: torch.Generator) -> Tensor:
        """`[1, ...]` in the network's layout, as the family's pipeline draws it from a generator with the clip's seed."""

    @abstractmethod
    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        """What the network says of `x_t` `[B, ...]` at the times `t` `[B]`, guidance applied."""

    def run(self, graph: str, *inputs: Tensor) -> Tensor:
        """What a graph makes of inputs on the host, on the host."""
        return cast("Tensor", self._program.run(graph, *self._program.put(inputs)).result())

    def prepare(self, schedule: Any, num_steps: int) -> None:
        """Set the noise schedule's times."""
        schedule.set_timesteps(num_steps)
        schedule.set_begin_index(0)

    def seen(self, leg: ClipLeg) -> Tensor:
        """The row as the network is to see it."""
        return leg.x_t

    def advance(self, leg: ClipLeg, predicted: Tensor) -> Tensor:
        """The row after a step. A solver that adds noise draws it from the clip's own generator: never from the process's."""
        drawn = {"generator": leg.draw} if self._draws else {}
        return cast("Tensor", leg.schedule.step(predicted, leg.t, leg.x_t, **drawn, return_dict=False)[0])

    def clean(self, x_t: Tensor) -> Tensor:
        """A row in the network's layout as latents `[C, F, H, W]`."""
        return x_t[0]

    def guides(self, context: SessionContext) -> dict[str, Tensor]:
        """Tensors that are made once a leg."""
        return {}

    # -- Sampler --------------------------------------------------------------------------------------------------------------

    def warm(self) -> None:
        self._program.warm()

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        return (*text_violations(context, self._text_shape), *guidance_violations(context, self._text_shape, self.config.max_guidance))

    def blank(self) -> TextEmbedding:
        return blank_text(self._text_shape)

    def open(self, context: SessionContext) -> ClipLeg:
        away = context.guidance.away
        sides = [context.embedding] if away is None or context.guidance.scale == 1 else [context.embedding, away]
        text = tuple(torch.cat([torch.tensor(part) for part in parts]) for parts in zip(*((s.tokens, s.mask) for s in sides), strict=True))
        return ClipLeg(context, cast("tuple[Tensor, Tensor]", text), None, torch.empty(0), 0, self.guides(context))

    def start(self, leg: ClipLeg, chunk: int) -> None:
        schedule = copy.deepcopy(self._schedule)
        self.prepare(schedule, leg.context.num_steps)
        leg.schedule, leg.step, leg.kept, leg.error = schedule, 0, {}, None
        leg.skipping = Skipping(self.config.skip_threshold, self.config.forwards(leg.context.num_steps))
        leg.draw = torch.Generator().manual_seed(leg.context.seed)
        leg.x_t = self.noise(leg.draw)

    def group(self, leg: ClipLeg) -> Hashable:
        return None

    def step(self, legs: Sequence[ClipLeg]) -> None:
        group = self.group(legs[0])
        unique = dict.fromkeys(legs)  # to warm up, a leg stands several times among them, and steps once
        known = {leg: copy.copy(leg.skipping) for leg in unique}  # replaced once nothing can raise that is not one leg's own
        predicted = {leg: row for leg in unique if (row := known[leg].guess(leg.x_t, leg.step, group)) is not None}
        if asking := [leg for leg in legs if leg not in predicted]:
            rows = [*asking, *[asking[0]] * (bucket_for(len(asking), self._buckets) - len(asking))]
            seen = {leg: self.seen(leg) for leg in asking}
            forward = self.predict(rows, torch.cat([seen[leg] for leg in rows]), torch.stack([leg.t for leg in rows]))
            predicted |= dict(zip(asking, forward.split(1), strict=False))
        for leg in dict.fromkeys(asking):
            known[leg].learn(leg.x_t, predicted[leg], group)
        for leg, row in predicted.items():
            leg.skipping = known[leg]
            try:
                if leg.error is None:
                    leg.x_t = self.advance(leg, row)
            except Exception as error:  # noqa: BLE001 - a solver's, which must not keep the others from their step
                leg.error = error
            leg.step += 1

    def latents(self, leg: ClipLeg) -> Latents:
        if leg.error is not None:
            raise leg.error
        return cast("Latents", self.clean(leg.x_t).float().numpy().copy())

    def commit(self, legs: Sequence[ClipLeg]) -> None:  # noqa: B027 - nothing to do, and nothing for a family to add
        """Nothing follows a clip."""


class ClipPainter:
    """A `Painter` of whole clips, for autoencoders that are not causal: one graph, `decode`; nothing is remembered."""

    def __init__(self, decoder: torch.nn.Module, config: CheckpointConfig) -> None:
        self._program = load_program(config, clip_decoder_graphs(decoder, config))

    def fresh(self) -> None:
        return None

    def paint(self, latents: Latents, memory: None) -> tuple[NDArray[np.uint8], None]:
        pixels, peak = self._program.run("decode", self._program.put(torch.tensor(latents)[None])).result()
        if not peak.isfinite():
            raise FloatingPointError("the frames of the clip are not finite")
        return cast("NDArray[np.uint8]", pixels[0].numpy()), memory


def clip_decoder_graphs(decoder: torch.nn.Module, config: CheckpointConfig) -> list[GraphSpec]:
    """Of a module with `decode`, latents `[1, C, F, H, W]` → uint8 `[1, N, H, W, 3]` and their largest magnitude before that: one clip."""
    shape = config.latent_shape(0)
    return [GraphSpec(DECODER, "decode", Bucket(1, *shape[1:]), decoder, "decode", partial(_latents, shape))]


def _latents(shape: tuple[int, ...], _: torch.dtype) -> Inputs:
    return (torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)),)


def guided(conditional: Tensor, unconditional: Tensor, legs: Sequence[ClipLeg]) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), in the order of operations that diffusers uses. Rows are of `legs`."""
    rows = zip(legs, conditional.split(1), unconditional.split(1), strict=True)
    return torch.cat([without + leg.scale * (led - without) if leg.texts > 1 else led for leg, led, without in rows])


class Angles(torch.nn.Module):
    """Cosines and sines of rotary positions: one for all layers, which hold it without a copy."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, cosines: Tensor, sines: Tensor) -> None:
        super().__init__()
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)


class AlongRows(torch.nn.Module):
    """Runs a module on one row at a time and joins what comes out.

    Convolutions, and matrix products of one row a session, round differently as the batch grows, and a session's frames must not
    depend on who else is in its batch. So the small layers run as they would alone; the large ones have many rows each.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *rows: Tensor | None, **named: Any) -> Any:
        """Positional tensors have B rows. Returns what the module does, each part joined."""
        count = next(len(row) for row in rows if row is not None)
        parts = [self.module(*(None if row is None else row[i : i + 1] for row in rows), **named) for i in range(count)]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))

"""What is known of a model that comes as a checkpoint, once it is described. Without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from model_core.chunk_grid import ChunkGrid
from model_core.config import ModelConfig, chosen
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.solvers import Solving

_ATTENTION = ("window", "sink", "renewal", "shift", "steps", "context_noise", "averaged")  # in the fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What the next chunk of a streaming model sees, in chunks, and the times that it goes through.

    Attributes:
        window: the last ones; 0 for all.
        sink: and the session's first ones, for good.
        renewal: the cache is made anew from the last `window` chunks whenever a multiple of this many is done, so that it depends on no
            chunk older than the suffix; 0 for never.
        shift: of the times of the steps, toward noise.
        steps: the times that the model was distilled to, from noise on, each as (what the network is told, share of noise). Empty: evenly
            spaced ones, shifted.
        context_noise: the time that the network is told of a clean chunk.
        averaged: which of a checkpoint's generators is taken; None: the averaged one, where there are two.
    """

    window: int = 0
    sink: int = 0
    renewal: int = 0
    shift: float = 1.0
    steps: tuple[tuple[float, float], ...] = ()
    context_noise: float = 0.0
    averaged: bool | None = None

    def listed(self, num_steps: int) -> tuple[tuple[float, float], ...]:
        """`num_steps` of `steps`, evenly spread: a model does best at times that it knows."""
        return tuple(self.steps[i * len(self.steps) // num_steps] for i in range(num_steps)) if self.steps else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig(ModelConfig):
    """A model that comes as a checkpoint.

    Attributes:
        family_name: of the registry.
        checkpoint: where its weights are.
        components: of it, as far as they are used, with the classes of their networks.
        chunk_grid: how its latents fall into chunks.
        channels, factor: of the latents, and pixels a latent position along height and width.
        window: chunks in the suffix: what the next chunk is made from, and its frames.
        decoder_window: chunks of it that matter to its frames.
        attention: of a streaming model.
        decoder: the component that decodes: `vae`, or the folder of a TAEHV.
        frame_rate: frames a second that the network is told of if `told_rate`, whatever rate they are played at.
        solving: how the steps of a clip are taken.
        max_tokens: of text.
        skip_threshold: see `model_core.families.common.skipping`; 0 for no skipping. Streaming models have few steps and skip none.
    """

    family_name: str
    checkpoint: Checkpoint
    components: tuple[tuple[str, str], ...]
    chunk_grid: ChunkGrid
    channels: int
    factor: int
    window: int
    decoder_window: int
    attention: Attention
    decoder: str
    frame_rate: int
    told_rate: bool = False
    solving: Solving = field(default_factory=Solving)
    max_tokens: int
    skip_threshold: float

    @property
    def family(self) -> str:
        return self.family_name

    @property
    def grid(self) -> ChunkGrid:
        return self.chunk_grid

    @property
    def latent_size(self) -> tuple[int, int, int]:
        return self.channels, self.height // self.factor, self.width // self.factor

    @property
    def context_chunks(self) -> int:
        return self.window

    @property
    def restyles(self) -> bool:
        return self.window > 0  # it streams

    @property
    def source_context(self) -> int:
        """A chunk, and a frame that has a latent frame to itself."""
        return 1 + self.grid.rest * self.grid.factor if self.restyles else 0

    @property
    def max_prompt_tokens(self) -> int:
        return self.max_tokens

    def forwards(self, num_steps: int) -> int:
        return self.solving.forwards(num_steps)

    @property
    def decoder_chunks(self) -> int:
        return self.decoder_window

    @property
    def sink_chunks(self) -> int:
        return self.attention.sink

    def identity(self) -> dict[str, object]:
        made_of = {
            "weights": self.checkpoint.identity(name for name, _ in self.components), "dtype": self.checkpoint.dtype,
            "decoder": self.decoder == "vae", "attention": chosen(self.attention, _ATTENTION), "max_tokens": self.max_tokens,
            "skip_threshold": self.skip_threshold,
        }  # fmt: skip
        return super(CheckpointConfig, self).identity() | made_of | ({"frame_rate": self.frame_rate} if self.told_rate else {})

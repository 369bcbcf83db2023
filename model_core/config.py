"""Typed configuration of models and engines. Values live in `presets.py`; nothing here reads the environment."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from model_core.acts import ARROWS, Keys
from model_core.chunk_grid import ChunkGrid
from model_core.enhancement import AS_RENDERED, Enhancement

Media = Literal["image", "video"]  # what a session may be given besides its prompt


# The fields of each part that are in the fingerprint. A field that is added and leaves frames as they are is not named here.
_GRID = ("first", "rest", "factor", "head", "chunks", "last")
_TEXT = ("package", "weights_sha256", "max_tokens", "width")
_VAE = ("latent_channels", "encoder_width", "decoder_width", "decoder_blocks", "spatial_factor", "temporal_factor")
_DIT = (
    "latent_channels", "latent_frames", "latent_height", "latent_width", "patch", "width", "depth", "heads", "mlp_ratio", "text_width",
    "window",
)  # fmt: skip


def chosen(part: object, names: tuple[str, ...]) -> dict[str, object]:
    """These fields of a part of a configuration, for a fingerprint."""
    return {name: getattr(part, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """Frozen sentence encoder in front of the denoiser. `max_tokens` is T, `width` is the embedding width."""

    package: str
    weights_sha256: str
    max_tokens: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Causal video autoencoder: 8x in space, 4x in time. `encoder_width` and `decoder_width` are channels at latent resolution."""

    latent_channels: int
    encoder_width: int
    decoder_width: int
    decoder_blocks: int
    spatial_factor: int = 8
    temporal_factor: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Causal diffusion transformer of chunks of `latent_frames` frames. Attention reaches back `window` chunks. It knows `keys` keys."""

    latent_channels: int
    latent_frames: int
    latent_height: int
    latent_width: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int
    window: int
    text_width: int
    keys: int = 0

    @property
    def tokens_per_chunk(self) -> int:
        return self.latent_frames * (self.latent_height // self.patch) * (self.latent_width // self.patch)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConfig:
    """Digests that pin `vae.safetensors`, `dit.safetensors` and, where there is one, `enhancer.safetensors`.

    All but `dit.safetensors` are those of the model `shared_with`, where one is named.
    """

    vae_sha256: str
    dit_sha256: str
    enhancer_sha256: str = ""
    shared_with: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """What a stage runs on. What can change a frame is part of `repr`, and so of the model's fingerprint.

    Attributes:
        name: `cpu`, `cuda` or `neuron`.
        dtype: of weights and activations, `float32` or `bfloat16`.
        weights: empty, or `int8` or `fp8`: linear layers keep their weights in 8 bits and a scale a row, and compute in `dtype`.
        channels_last: convolutions see an image's channels side by side, which most devices have their fastest kernels for.
        compiled: whether graphs are compiled; always, on `neuron`.
        target: the chip, such as `trn2` or `NVIDIA H100 80GB HBM3`: chips of other kinds round otherwise. It must be the one that is
            found. Empty, which `neuron` refuses: whatever is there, and replicas of unlike chips may not share sessions.
        cores: that a replica owns; 0 where they are not counted.
        ranks: processes that share the network and its caches, with a device or an equal part of the cores each. Sums of what they make
            round otherwise than one process does.
        cache: folder of compiled graphs and their manifests; the same for all replicas, or sooner or later one compiles.
        require_warm: start only if the manifest there says that everything is compiled.
        stuck_seconds: no call of the device counts as stuck before that; one that took long before may take twenty times as long, and the
            very first ten times that.
    """

    name: str = "cpu"
    dtype: str = "float32"
    weights: str = ""
    channels_last: bool = False
    compiled: bool = False
    target: str = ""
    cores: int = 0
    ranks: int = 1
    cache: str = field(default="", repr=False)
    require_warm: bool = field(default=False, repr=False)
    stuck_seconds: float = field(default=60.0, repr=False)

    def identity(self) -> dict[str, object]:
        """Every field that can change a frame; a test compares them with `repr`, which names programs that were compiled."""
        return {
            "name": self.name, "dtype": self.dtype, "weights": self.weights, "channels_last": self.channels_last,
            "compiled": self.compiled, "target": self.target, "cores": self.cores, "ranks": self.ranks,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What each stage of a model runs on."""

    text_encoder: RuntimeConfig = RuntimeConfig()
    denoiser: RuntimeConfig = RuntimeConfig()
    decoder: RuntimeConfig = RuntimeConfig()
    enhancer: RuntimeConfig = RuntimeConfig()

    def identity(self) -> dict[str, dict[str, object]]:
        """All of it that can change a frame as it is decoded, by stage and field."""
        return {stage: getattr(self, stage).identity() for stage in ("text_encoder", "denoiser", "decoder")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(ABC):
    """One servable model, as everything but its own family sees it.

    Attributes:
        fps: the media rate that its frames are meant to be played at.
        num_steps, min_steps, max_steps: denoise steps a chunk: by default, and what may be asked for.
        guidance, negative_prompt: what leads a session by default; a guidance of 1 is none.
        max_guidance: that may be asked for; 1 for models that have none.
        media: what a session may be given besides its prompt.
        needs_media: a session must be given one of them.
        media_frames: of the longest video that it may be given.
        enhanced: what its rate, size and grid count on; see `shown`.
    """

    name: str
    description: str
    fps: int
    height: int
    width: int
    num_steps: int
    max_steps: int
    min_steps: int = 1
    guidance: float = 1.0
    max_guidance: float = 1.0
    negative_prompt: str = ""
    execution: Execution = Execution()
    media: tuple[Media, ...] = ()
    needs_media: bool = False
    media_frames: int = 1
    enhanced: Enhancement = AS_RENDERED

    def shown(self, enhance: Enhancement) -> Self:
        """The model as viewers of enhanced sessions see it: frames a second, frames of chunks, and size. Stages never see it so."""
        fps, height, width = self.fps * enhance.frames // enhance.slow, self.height * enhance.size, self.width * enhance.size
        return replace(self, fps=fps, height=height, width=width, enhanced=enhance) if enhance else self

    @property
    def enhancer(self) -> str:
        """Digest of the weights that enhance its frames; empty where there are none."""
        return ""

    @property
    @abstractmethod
    def family(self) -> str:
        """Who builds its stages: a name in `model_core.families.registry`."""

    @property
    @abstractmethod
    def grid(self) -> ChunkGrid: ...

    @property
    @abstractmethod
    def latent_size(self) -> tuple[int, int, int]:
        """Channels, height and width of its latents."""

    @property
    @abstractmethod
    def context_chunks(self) -> int:
        """How many of the last chunks the next one is made from: the length of the suffix that a leg is opened with."""

    def forwards(self, num_steps: int) -> int:
        """Looks at the denoiser in a chunk of `num_steps` steps. Some solvers look twice in a step."""
        return num_steps

    def work(self, num_steps: int, guidance: float) -> int:
        """What a chunk costs, in looks at the denoiser as they are measured: with the guidance that is the default."""
        return math.ceil(self.forwards(num_steps) * _sides(guidance) / _sides(self.guidance))

    def steps_within(self, work: int, num_steps: int, guidance: float) -> int:
        """The most steps, up to `num_steps`, of which a chunk costs no more than `work`; the fewest that there are if none does."""
        fitting = (steps for steps in range(self.min_steps, num_steps + 1) if self.work(steps, guidance) <= work)
        return max(fitting, default=min(self.min_steps, num_steps))

    @property
    @abstractmethod
    def max_prompt_tokens(self) -> int:
        """Tokens of a text, with those that the model adds. What exceeds them would not be looked at."""

    @property
    def decoder_chunks(self) -> int:
        """How many of those the decoder's memory is rebuilt from."""
        return self.context_chunks

    @property
    def sink_chunks(self) -> int:
        """How many of the first chunks the model attends to for good; they stay in the log."""
        return 0

    @property
    def keys(self) -> Keys:
        """What a viewer may hold while a session plays; empty for a model that takes no actions."""
        return ()

    @property
    def restyles(self) -> bool:
        """Whether its sessions may restyle a source."""
        return False

    @property
    def source_context(self) -> int:
        """Frames of a source before a chunk that the chunk's latents depend on."""
        return 0

    def identity(self) -> dict[str, object]:
        """All of it that can change a frame, by field, as JSON: sessions go on wherever this is equal.

        Names, prose, rates of playback and limits are no part of it. Where weights are not pinned, all of them are read, once a process.

        Raises:
            WeightsError: they cannot be read.
        """
        return {
            "family": self.family, "height": self.height, "width": self.width, "max_steps": self.max_steps,
            "grid": chosen(self.grid, _GRID), "latent_size": self.latent_size, "context_chunks": self.context_chunks,
            "decoder_chunks": self.decoder_chunks, "sink_chunks": self.sink_chunks, "execution": self.execution.identity(),
        }  # fmt: skip

    def latent_shape(self, chunk: int) -> tuple[int, int, int, int]:
        """`(C, F, H, W)` of a chunk's latents."""
        return self.latent_size[0], self.grid.latents(chunk), *self.latent_size[1:]

    @property
    def frames_per_chunk(self) -> int:
        """Of every chunk but, with some models, the first."""
        return self.grid.rest * self.grid.factor if self.grid.chunks != 1 else self.grid.first_frame(1)

    @property
    def chunk_seconds(self) -> float:
        return self.frames_per_chunk / self.fps


def _sides(guidance: float) -> int:
    """Texts that the denoiser looks at in a step."""
    return 2 if guidance > 1 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MillraceConfig(ModelConfig):
    """The embedded model."""

    shift: float
    text: TextEncoderConfig
    vae: VAEConfig
    dit: DiTConfig
    weights: WeightsConfig

    @property
    def family(self) -> str:
        return "millrace"

    @property
    def grid(self) -> ChunkGrid:
        frames, factor = self.dit.latent_frames, self.vae.temporal_factor * self.enhanced.frames
        return ChunkGrid(first=frames, rest=frames, factor=factor, head=factor)

    @property
    def enhancer(self) -> str:
        return self.weights.enhancer_sha256

    @property
    def latent_size(self) -> tuple[int, int, int]:
        return self.dit.latent_channels, self.dit.latent_height, self.dit.latent_width

    @property
    def context_chunks(self) -> int:
        return self.dit.window

    def identity(self) -> dict[str, object]:
        made_of = {
            "shift": self.shift, "text": chosen(self.text, _TEXT), "vae": chosen(self.vae, _VAE), "dit": chosen(self.dit, _DIT),
            "weights": chosen(self.weights, ("vae_sha256", "dit_sha256")),
        } | ({"keys": list(self.keys)} if self.keys else {})  # fmt: skip
        return super(MillraceConfig, self).identity() | made_of

    @property
    def keys(self) -> Keys:
        return ARROWS[: self.dit.keys]

    @property
    def restyles(self) -> bool:
        return True

    @property
    def source_context(self) -> int:
        return self.frames_per_chunk  # its encoder's memory reaches back seven frames

    @property
    def max_prompt_tokens(self) -> int:
        return self.text.max_tokens

    @property
    def decoder_chunks(self) -> int:
        return 2  # its memory reaches back fewer latent frames than two chunks hold


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One denoise replica.

    Attributes:
        slots: sessions whose caches it holds at once.
        batch_buckets: compiled batch sizes, ascending; a batch is padded to the next one.
        max_lead_chunks: finished chunks a session may have waiting to be pulled; the engine skips it meanwhile (backpressure).
        comfort_s: rows with more slack than this take turns instead of being ordered by it.
        job_patience_s: a job's chunk is due this long after it could have started.
        threads: torch intra-op threads; one a stage is fastest on CPU, because the stages overlap.
    """

    slots: int = 16
    batch_buckets: tuple[int, ...] = (1, 2, 4, 8)
    max_lead_chunks: int = 2
    comfort_s: float = 0.5
    job_patience_s: float = 3.0
    threads: int = 1

"""Typed configuration of models and engines. Values live in `presets.py`; nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """Frozen sentence encoder in front of the denoiser. `max_tokens` is T, `width` is the embedding width."""

    package: str
    weights_sha256: str
    max_tokens: int
    width: int
    cache_size: int = 1024


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
    """Causal diffusion transformer. One chunk is `latent_frames` latent frames; attention reaches back `window` chunks."""

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

    @property
    def tokens_per_chunk(self) -> int:
        return self.latent_frames * (self.latent_height // self.patch) * (self.latent_width // self.patch)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConfig:
    """Digests that pin the checkpoint files `vae.safetensors` and `dit.safetensors`."""

    vae_sha256: str
    dit_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One servable model. `fps` is the media rate its frames are meant to be played at."""

    name: str
    description: str
    fps: int
    height: int
    width: int
    num_steps: int
    max_steps: int
    shift: float
    text: TextEncoderConfig
    vae: VAEConfig
    dit: DiTConfig
    weights: WeightsConfig

    @property
    def frames_per_chunk(self) -> int:
        return self.dit.latent_frames * self.vae.temporal_factor

    @property
    def chunk_seconds(self) -> float:
        return self.frames_per_chunk / self.fps


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

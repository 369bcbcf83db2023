"""CogVideoX 1.0 and 1.5, text to video, on diffusers' networks (https://github.com/zai-org/CogVideo).

The network takes latents frame by frame, `[B, F, C, H, W]`, beside the tokens of the text. Version 1.5 joins latent frames by twos, so a
clip of odd length gets one more, in front, which is made and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel, SchedulerMixin
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from transformers import T5EncoderModel

from model_core.config import EngineConfig, ModelConfig
from model_core.families.checkpoints.loading import load_module, load_noise_schedule
from model_core.families.common.clip import AlongRows, Angles, ClipLeg, ClipPainter, ClipSampler, clip_decoder_graphs
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.pixels import with_peak
from model_core.families.common.prompts import PromptEmbedder, prompt_graphs
from model_core.families.common.sides import Sides, row_buckets, sided_graphs
from model_core.families.common.text_ids import load_tokenizer
from model_core.families.interface import Embedder, Painter, Sampler
from model_core.graphs import GraphSpec, Inputs


def embedder(config: ModelConfig) -> Embedder:
    own, pipeline = _own(config), _prompts(_own(config))
    return PromptEmbedder(pipeline, own, pipeline.text_encoder.config.d_model)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = _own(config)
    return CogVideoXSampler(own, engine.batch_buckets, load_noise_schedule(own.checkpoint, SchedulerMixin), _network(own))


def painter(config: ModelConfig) -> Painter:
    own = _own(config)
    return ClipPainter(CogVideoXDecoder(load_module(own.checkpoint, "vae", AutoencoderKLCogVideoX)), own)


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = _own(config)
    decoder = CogVideoXDecoder(load_module(own.checkpoint, "vae", AutoencoderKLCogVideoX))
    return [
        *prompt_graphs(_prompts(own), own),
        *denoiser_graphs(_network(own), own, engine.batch_buckets),
        *clip_decoder_graphs(decoder, own),
    ]


def denoiser_graphs(network: CogVideoXGraph, config: CheckpointConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """For each number of clips, with a row for each of their texts."""
    _, frames, _, height, width = network.shape
    return sided_graphs(network, config, batches, (frames, height, width))


def _network(config: CheckpointConfig) -> CogVideoXGraph:
    return CogVideoXGraph(load_module(config.checkpoint, "transformer", CogVideoXTransformer3DModel), config)


def _prompts(config: CheckpointConfig) -> Any:
    """The part of diffusers' pipeline that embeds prompts."""
    text = load_module(config.checkpoint, "text_encoder", T5EncoderModel)
    return CogVideoXPipeline(load_tokenizer(config.checkpoint), text, None, None, None)


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


class CogVideoXGraph(nn.Module):
    """The transformer for clips of one size, with tensors in their places.

    Attributes:
        shape: of a clip's latents in the network's layout, `[1, F, C, H, W]`.
        extra: latent frames in front that are thrown away.
    """

    def __init__(self, transformer: Any, config: CheckpointConfig) -> None:
        super().__init__()
        self.transformer = transformer
        channels, frames, height, width = config.latent_shape(0)
        self.extra = -frames % (transformer.config.patch_size_t or 1)
        self.shape = (1, frames + self.extra, channels, height, width)
        self._tokens = config.max_tokens
        if transformer.config.use_rotary_positional_embeddings:
            angles = Angles(*_angles(transformer, config, self.shape[1]))
            for block in transformer.transformer_blocks:
                for name in ("norm_q", "norm_k"):
                    setattr(block.attn1, name, _Rotated(getattr(block.attn1, name), angles, config.max_tokens))
        else:
            _place(transformer, self.shape[1], height, width)
        for block in transformer.transformer_blocks:  # each has small layers of its own that look at the time
            for norm in (block.norm1, block.norm2):
                norm.linear = AlongRows(norm.linear)
        transformer.norm_out.linear = AlongRows(transformer.norm_out.linear)
        transformer.time_embedding = AlongRows(transformer.time_embedding)
        transformer.patch_embed = AlongRows(transformer.patch_embed)

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """`x_t` `[B, F, C, H, W]`, `t` `[B]`, `text` `[B, T, D]` → what the network predicts, of the shape of `x_t`."""
        dtype = self.transformer.proj_out.weight.dtype
        return cast("Tensor", self.transformer(x_t.to(dtype), text.to(dtype), t, return_dict=False)[0])

    def inputs(self, rows: int, dtype: torch.dtype) -> Inputs:
        """Plausible ones, for `rows` rows."""
        del dtype  # nothing here comes from another graph
        draw, network = torch.Generator().manual_seed(0), self.transformer
        x_t = torch.randn(rows, *self.shape[1:], generator=draw)
        text = torch.randn(rows, self._tokens, network.config.text_embed_dim, generator=draw)
        return x_t, torch.linspace(999, 1, rows), text


class _Rotated(nn.Module):
    """The norm of queries or keys, and the rotary position of those that are no text, which diffusers writes into a slice: a scatter."""

    def __init__(self, norm: nn.Module, angles: Angles, text: int) -> None:
        super().__init__()
        self.norm, self.angles, self._text = norm, angles, text

    def forward(self, x: Tensor) -> Tensor:
        """`[B, heads, T + S, head_dim]` → the same."""
        x = self.norm(x)
        angles: Any = (self.angles.cosines, self.angles.sines)
        rotated: Any = apply_rotary_emb(x[:, :, self._text :], angles)
        return torch.cat((x[:, :, : self._text], rotated), 2)


def _place(transformer: Any, frames: int, height: int, width: int) -> None:
    """Make the 2B model's table of positions once, for one size and in the weights' type; it would make it in each step, in float64."""
    patch = transformer.patch_embed
    patch.sample_height, patch.sample_width = height, width
    patch.sample_frames = (frames - 1) * patch.temporal_compression_ratio + 1
    table = patch._get_positional_embeddings(height, width, patch.sample_frames)  # noqa: SLF001 - what its forward asks for other sizes
    patch.pos_embedding = table.to(transformer.dtype)


def _angles(transformer: Any, config: CheckpointConfig, frames: int) -> tuple[Tensor, Tensor]:
    """The rotary embedding's cosines and sines, as the pipeline makes them: which is all that is wanted of it here."""
    pipeline: Any = CogVideoXPipeline(None, None, None, transformer, None)
    pipeline.vae_scale_factor_spatial = config.factor
    angles = pipeline._prepare_rotary_positional_embeddings(config.height, config.width, frames, torch.device("cpu"))  # noqa: SLF001
    return cast("tuple[Tensor, Tensor]", angles)


class CogVideoXSampler(ClipSampler):
    """`CogVideoXTransformer3DModel` as a `Sampler`."""

    def __init__(self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, network: CogVideoXGraph) -> None:
        width = network.transformer.config.text_embed_dim
        super().__init__(config, buckets, schedule, width, denoiser_graphs(network, config, buckets))
        self._row_buckets = row_buckets(config, buckets)
        self._shape, self._extra = network.shape, network.extra

    def noise(self, draw: torch.Generator) -> Tensor:
        noise: Tensor = randn_tensor(self._shape, generator=draw, dtype=torch.float32)
        return noise

    def prepare(self, schedule: Any, num_steps: int) -> None:
        schedule.set_timesteps(num_steps)

    def start(self, leg: ClipLeg, chunk: int) -> None:
        """Some solvers begin with more noise than others, which depends on the times that are set."""
        super().start(leg, chunk)
        leg.x_t = leg.x_t * leg.schedule.init_noise_sigma

    def seen(self, leg: ClipLeg) -> Tensor:
        return cast("Tensor", leg.schedule.scale_model_input(leg.x_t, leg.t))

    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        sides = Sides.of(legs, x_t, t, self._row_buckets)
        predicted = self.run("denoise", sides.x_t, sides.t.float(), sides.tokens)
        return sides.joined(predicted, legs)

    def advance(self, leg: ClipLeg, predicted: Tensor) -> Tensor:
        """The 5B models' solver wants to be told what it estimated a step before, and adds noise."""
        schedule = leg.schedule
        if not isinstance(self._schedule, CogVideoXDPMScheduler):
            return super().advance(leg, predicted)
        before = schedule.timesteps[leg.step - 1] if leg.step else None
        x_t, leg.kept["estimate"] = schedule.step(
            predicted, leg.kept.get("estimate"), leg.t, before, leg.x_t, generator=leg.draw, return_dict=False
        )
        return cast("Tensor", x_t)

    def clean(self, x_t: Tensor) -> Tensor:
        return x_t[0, self._extra :].transpose(0, 1)


class CogVideoXDecoder(nn.Module):
    """`AutoencoderKLCogVideoX`'s decoder, for whole clips.

    It decodes latent frames by twos, the odd one with the first two, and its norms look at all that it has before it: how a clip is
    cut is part of what its frames are, so it is cut as diffusers cuts it.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised latents `[1, C, F, H, W]` → pixels uint8 `[1, N, H, W, 3]`, and their largest magnitude before that."""
        vae = self.vae
        z = 1 / vae.config.scaling_factor * latents.to(vae.decoder.conv_in.conv.weight.dtype)
        return with_peak(vae.decode(z, return_dict=False)[0])

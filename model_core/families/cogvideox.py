"""CogVideoX 1.0 and 1.5, text to video, on diffusers' networks (https://github.com/zai-org/CogVideo).

The network takes latents frame by frame, `[B, F, C, H, W]`, beside the tokens of the text. Version 1.5 joins latent frames by twos, so a
clip of odd length gets one more, in front, which is made and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import T5EncoderModel

from model_core.config import EngineConfig, ModelConfig
from model_core.families.clip import AlongRows, ClipLeg, ClipSampler, Sides
from model_core.families.described import CheckpointConfig
from model_core.families.interface import Embedder, Painter, Sampler
from model_core.families.loading import load_module, load_noise_schedule, load_tokenizer
from model_core.families.prompts import PromptEmbedder
from model_core.families.wan_vae import pixels
from model_core.graphs import DENOISER, Bucket, GraphSpec, Inputs
from model_core.types import Latents


def embedder(config: ModelConfig) -> Embedder:
    own = _own(config)
    text = load_module(own.checkpoint, "text_encoder", T5EncoderModel)
    pipeline = CogVideoXPipeline(load_tokenizer(own.checkpoint), text, None, None, None)  # for `encode_prompt`
    return PromptEmbedder(pipeline, own, text.config.d_model)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = _own(config)
    return CogVideoXSampler(own, engine.batch_buckets, load_noise_schedule(own.checkpoint, SchedulerMixin), _network(own))


def painter(config: ModelConfig) -> Painter:
    return CogVideoXPainter(load_module(_own(config).checkpoint, "vae", AutoencoderKLCogVideoX))


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    """The transformer, which is where the time goes; text encoder and autoencoder are not listed yet."""
    own = _own(config)
    network, listed = CogVideoXGraph(_network(own), own), []
    _, frames, _, height, width = network.shape
    for clips in engine.batch_buckets:
        rows = clips * own.texts
        bucket = Bucket(rows, frames, height, width, own.max_tokens)
        listed.append(GraphSpec(DENOISER, "denoise", bucket, network, "denoise", partial(network.inputs, rows)))
    return listed


def _network(config: CheckpointConfig) -> Any:
    return load_module(config.checkpoint, "transformer", CogVideoXTransformer3DModel)


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
        angles = _angles(transformer, config, self.shape[1]) if transformer.config.use_rotary_positional_embeddings else ()
        for name, values in zip(("_cosines", "_sines"), angles, strict=False):
            self.register_buffer(name, values, persistent=False)
        self._rotary = bool(angles)

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """`x_t` `[B, F, C, H, W]`, `t` `[B]`, `text` `[B, T, D]` → what the network predicts, of the shape of `x_t`."""
        angles = (self._cosines, self._sines) if self._rotary else None
        return cast("Tensor", self.transformer(x_t, text, t, image_rotary_emb=angles, return_dict=False)[0])

    def inputs(self, rows: int, dtype: torch.dtype) -> Inputs:
        """Plausible ones, for `rows` rows."""
        del dtype  # the transformer has the checkpoint's
        draw, network = torch.Generator().manual_seed(0), self.transformer
        x_t = torch.randn(rows, *self.shape[1:], generator=draw)
        text = torch.randn(rows, self._tokens, network.config.text_embed_dim, generator=draw)
        return x_t.to(network.dtype), torch.linspace(999, 1, rows).long(), text.to(network.dtype)


def _angles(transformer: Any, config: CheckpointConfig, frames: int) -> tuple[Tensor, Tensor]:
    """The rotary embedding's cosines and sines, as the pipeline makes them: which is all that is wanted of it here."""
    pipeline: Any = CogVideoXPipeline(None, None, None, transformer, None)
    pipeline.vae_scale_factor_spatial = config.factor
    angles = pipeline._prepare_rotary_positional_embeddings(config.height, config.width, frames, torch.device("cpu"))  # noqa: SLF001
    return cast("tuple[Tensor, Tensor]", angles)


class CogVideoXSampler(ClipSampler):
    """`CogVideoXTransformer3DModel` as a `Sampler`."""

    def __init__(self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, network: Any) -> None:
        super().__init__(config, buckets, schedule, network.config.text_embed_dim)
        self._graph = CogVideoXGraph(network, config)
        for block in network.transformer_blocks:  # each has small layers of its own that look at the time
            for norm in (block.norm1, block.norm2):
                norm.linear = AlongRows(norm.linear, config.texts)
        network.norm_out.linear = AlongRows(network.norm_out.linear, config.texts)
        network.time_embedding = AlongRows(network.time_embedding, config.texts)
        network.patch_embed = AlongRows(network.patch_embed, config.texts)

    def noise(self, draw: torch.Generator) -> Tensor:
        noise: Tensor = randn_tensor(self._graph.shape, generator=draw, dtype=torch.float32)
        return cast("Tensor", noise * self._schedule.init_noise_sigma)

    def prepare(self, schedule: Any, num_steps: int) -> None:
        schedule.set_timesteps(num_steps)

    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        sides, dtype = Sides.of(legs, x_t, t), self._graph.transformer.dtype
        predicted = self._graph.denoise(sides.x_t.to(dtype), sides.t, sides.tokens.to(dtype))
        return sides.joined(predicted, len(legs), self.config.guidance)

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
        return x_t[0, self._graph.extra :].transpose(0, 1)


class CogVideoXPainter:
    """`AutoencoderKLCogVideoX` as a `Painter` of whole clips; nothing is remembered.

    It decodes latent frames by twos, the odd one with the first two, and its norms look at all that it has before it: how a clip is
    cut is part of what its frames are, so it is cut as diffusers cuts it.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    def fresh(self) -> None:
        return None

    def paint(self, latents: Latents, memory: None) -> tuple[NDArray[np.uint8], None]:
        vae = self._vae
        z = 1 / vae.config.scaling_factor * torch.tensor(latents)[None].to(vae.dtype)
        return pixels(vae.decode(z, return_dict=False)[0]), memory

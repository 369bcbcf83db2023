"""LTX-Video, text to video, on diffusers' networks (https://github.com/Lightricks/LTX-Video).

The network sees latents as a row of tokens, one a latent position. Its autoencoder is not causal: a clip is decoded at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
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

_TRAINED_FPS = 25  # positions in time are in seconds at this rate; diffusers' default
_NOISE_SEED = 0  # of the noise that some checkpoints' decoders add: the same for every clip, so that frames follow from latents


def embedder(config: ModelConfig) -> Embedder:
    own = _own(config)
    text = load_module(own.checkpoint, "text_encoder", T5EncoderModel)
    tokenizer = load_tokenizer(own.checkpoint)
    pipeline = LTXPipeline(scheduler=None, vae=None, text_encoder=text, tokenizer=tokenizer, transformer=None)  # for `encode_prompt`
    return PromptEmbedder(pipeline, own, text.config.d_model)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = _own(config)
    return LTXSampler(own, engine.batch_buckets, load_noise_schedule(own.checkpoint, FlowMatchEulerDiscreteScheduler), _network(own))


def painter(config: ModelConfig) -> Painter:
    return LTXPainter(load_module(_own(config).checkpoint, "vae", AutoencoderKLLTXVideo))


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    """The transformer, which is where the time goes; text encoder and autoencoder are not listed yet."""
    own = _own(config)
    _, frames, height, width = own.latent_shape(0)
    network, listed = LTXGraph(_network(own), own), []
    for clips in engine.batch_buckets:
        rows = clips * own.texts
        bucket = Bucket(rows, frames, height, width, own.max_tokens)
        listed.append(GraphSpec(DENOISER, "denoise", bucket, network, "denoise", partial(network.inputs, rows)))
    return listed


def _network(config: CheckpointConfig) -> Any:
    return load_module(config.checkpoint, "transformer", LTXVideoTransformer3DModel)


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


class LTXGraph(nn.Module):
    """The transformer for clips of one size, with tensors in their places."""

    def __init__(self, transformer: Any, config: CheckpointConfig) -> None:
        super().__init__()
        self.transformer = transformer
        _, self._frames, self._height, self._width = config.latent_shape(0)
        self._scale = (config.grid.factor / _TRAINED_FPS, config.factor, config.factor)
        self._tokens = config.max_tokens

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """`x_t` `[B, S, C]`, `t` `[B]`, `text` `[B, T, D]`, `mask` `[B, T]` → what the network predicts, of the shape of `x_t`."""
        predicted = self.transformer(
            hidden_states=x_t, encoder_hidden_states=text, timestep=t, encoder_attention_mask=mask, num_frames=self._frames,
            height=self._height, width=self._width, rope_interpolation_scale=self._scale, return_dict=False,
        )  # fmt: skip
        return cast("Tensor", predicted[0])

    def inputs(self, rows: int, dtype: torch.dtype) -> Inputs:
        """Plausible ones, for `rows` rows."""
        del dtype  # the transformer has the checkpoint's
        draw, network = torch.Generator().manual_seed(0), self.transformer
        x_t = torch.randn(rows, self._frames * self._height * self._width, network.config.in_channels, generator=draw)
        text = torch.randn(rows, self._tokens, network.config.caption_channels, generator=draw)
        return x_t.to(network.dtype), torch.linspace(999, 1, rows), text.to(network.dtype), torch.ones(rows, self._tokens)


class LTXSampler(ClipSampler):
    """`LTXVideoTransformer3DModel` as a `Sampler`."""

    def __init__(self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, network: Any) -> None:
        super().__init__(config, buckets, schedule, network.config.caption_channels)
        network.time_embed = AlongRows(network.time_embed, config.texts)
        self._graph = LTXGraph(network, config)

    def noise(self, draw: torch.Generator) -> Tensor:
        noise: Tensor = randn_tensor((1, *self.config.latent_shape(0)), generator=draw, dtype=torch.float32)
        return noise.flatten(2).transpose(1, 2)  # a token for each latent position

    def prepare(self, schedule: Any, num_steps: int) -> None:
        """Times are shifted the more the longer and larger the clip is."""
        _, frames, height, width = self.config.latent_shape(0)
        keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        given = {key: schedule.config[key] for key in keys if key in schedule.config}
        names = dict(zip(keys, ("base_seq_len", "max_seq_len", "base_shift", "max_shift"), strict=True))
        shift = calculate_shift(frames * height * width, **{names[key]: value for key, value in given.items()})
        schedule.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=shift)
        schedule.set_begin_index(0)

    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        sides, dtype = Sides.of(legs, x_t, t), self._graph.transformer.dtype
        predicted = self._graph.denoise(sides.x_t.to(dtype), sides.t, sides.tokens.to(dtype), sides.mask)
        return sides.joined(predicted, len(legs), self.config.guidance)

    def clean(self, x_t: Tensor) -> Tensor:
        return cast("Tensor", x_t[0].T.unflatten(1, self.config.latent_shape(0)[1:]))


class LTXPainter:
    """`AutoencoderKLLTXVideo` as a `Painter` of whole clips; nothing is remembered.

    Newer autoencoders clean what little noise is left as they decode. They are told that there is none, as diffusers tells them by default.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._mean, self._std = (values.view(1, -1, 1, 1, 1) for values in (vae.latents_mean, vae.latents_std))

    def fresh(self) -> None:
        return None

    def paint(self, latents: Latents, memory: None) -> tuple[NDArray[np.uint8], None]:
        vae = self._vae
        z = torch.tensor(latents)[None] * self._std / vae.config.scaling_factor + self._mean
        t = torch.zeros(1) if vae.config.timestep_conditioning else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_NOISE_SEED)
            frames = vae.decode(z.to(vae.dtype), t, return_dict=False)[0]
        return pixels(frames), memory

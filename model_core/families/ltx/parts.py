"""LTX-Video, text to video, on diffusers' networks (https://github.com/Lightricks/LTX-Video).

The network sees latents as a row of tokens, one a latent position. Its autoencoder is not causal: a clip is decoded at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel, SchedulerMixin
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from torch.func import functional_call
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
from model_core.graphs import Entry, GraphSpec, Inputs

_NOISE_SEED = 0  # of what some checkpoints' decoders add


def embedder(config: ModelConfig) -> Embedder:
    own, pipeline = _own(config), _prompts(_own(config))
    return PromptEmbedder(pipeline, own, pipeline.text_encoder.config.d_model)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = _own(config)
    return LTXSampler(own, engine.batch_buckets, load_noise_schedule(own.checkpoint, SchedulerMixin), _network(own))


def painter(config: ModelConfig) -> Painter:
    own = _own(config)
    return ClipPainter(LTXDecoder(load_module(own.checkpoint, "vae", AutoencoderKLLTXVideo), own), own)


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = _own(config)
    decoder = LTXDecoder(load_module(own.checkpoint, "vae", AutoencoderKLLTXVideo), own)
    return [
        *prompt_graphs(_prompts(own), own),
        *denoiser_graphs(_network(own), own, engine.batch_buckets),
        *clip_decoder_graphs(decoder, own),
    ]


def denoiser_graphs(network: LTXGraph, config: CheckpointConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """For each number of clips, with a row for each of their texts."""
    _, frames, height, width = config.latent_shape(0)
    return sided_graphs(network, config, batches, (frames, height, width))


def _network(config: CheckpointConfig) -> LTXGraph:
    return LTXGraph(load_module(config.checkpoint, "transformer", LTXVideoTransformer3DModel), config)


def _prompts(config: CheckpointConfig) -> Any:
    """The part of diffusers' pipeline that embeds prompts."""
    text = load_module(config.checkpoint, "text_encoder", T5EncoderModel)
    return LTXPipeline(scheduler=None, vae=None, text_encoder=text, tokenizer=load_tokenizer(config.checkpoint), transformer=None)


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


class LTXGraph(nn.Module):
    """The transformer for clips of one size, with tensors in their places."""

    def __init__(self, transformer: Any, config: CheckpointConfig) -> None:
        super().__init__()
        self.transformer = transformer
        transformer.time_embed = AlongRows(transformer.time_embed)
        _, self._frames, self._height, self._width = config.latent_shape(0)
        self._scale = (config.grid.factor / config.frame_rate, config.factor, config.factor)  # positions in time are in seconds
        self._tokens = config.max_tokens
        transformer.rope = _Held(*transformer.rope(torch.empty(1), self._frames, self._height, self._width, self._scale))

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """`x_t` `[B, S, C]`, `t` `[B]`, `text` `[B, T, D]`, `mask` `[B, T]` → what the network predicts, of the shape of `x_t`."""
        dtype = self.transformer.proj_in.weight.dtype
        predicted = self.transformer(
            hidden_states=x_t.to(dtype), encoder_hidden_states=text.to(dtype), timestep=t, encoder_attention_mask=mask,
            num_frames=self._frames, height=self._height, width=self._width, rope_interpolation_scale=self._scale, return_dict=False,
        )  # fmt: skip
        return cast("Tensor", predicted[0])

    def inputs(self, rows: int, dtype: torch.dtype) -> Inputs:
        """Plausible ones, for `rows` rows."""
        del dtype  # nothing here comes from another graph
        draw, network = torch.Generator().manual_seed(0), self.transformer
        x_t = torch.randn(rows, self._frames * self._height * self._width, network.config.in_channels, generator=draw)
        text = torch.randn(rows, self._tokens, network.config.caption_channels, generator=draw)
        return x_t, torch.linspace(999, 1, rows), text, torch.ones(rows, self._tokens)


class _Held(Angles):
    """In place of what makes rotary positions anew in every forward, by writes into slices: they follow from the clip's size."""

    def forward(self, *_: object) -> tuple[Tensor, Tensor]:
        return self.cosines, self.sines


class LTXSampler(ClipSampler):
    """`LTXVideoTransformer3DModel` as a `Sampler`."""

    def __init__(self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, network: LTXGraph) -> None:
        width = network.transformer.config.caption_channels
        super().__init__(config, buckets, schedule, width, denoiser_graphs(network, config, buckets))
        self._row_buckets = row_buckets(config, buckets)

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
        sides = Sides.of(legs, x_t, t, self._row_buckets)
        predicted = self.run("denoise", sides.x_t, sides.t, sides.tokens, sides.mask.float())
        return sides.joined(predicted, legs)

    def clean(self, x_t: Tensor) -> Tensor:
        return cast("Tensor", x_t[0].T.unflatten(1, self.config.latent_shape(0)[1:]))


class LTXDecoder(nn.Module):
    """`AutoencoderKLLTXVideo`'s decoder, for whole clips of one size.

    Newer autoencoders clean what little noise is left as they decode. They are told that there is none, as diffusers tells them by default.
    """

    def __init__(self, vae: Any, config: CheckpointConfig) -> None:
        super().__init__()
        self.vae = vae
        self._hold_noise(config)

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised latents `[1, C, F, H, W]` → pixels uint8 `[1, N, H, W, 3]`, and their largest magnitude before that."""
        vae = self.vae
        mean, deviation = (values.view(1, -1, 1, 1, 1) for values in (vae.latents_mean, vae.latents_std))
        z = latents * deviation / vae.config.scaling_factor + mean
        t = z.new_zeros(1) if vae.config.timestep_conditioning else None
        return with_peak(vae.decode(z.to(vae.decoder.conv_in.conv.weight.dtype), t, return_dict=False)[0])

    def _hold_noise(self, config: CheckpointConfig) -> None:
        """Some decoders add noise. Here it is the same for every clip, so that frames follow from latents, and no graph has to draw it."""
        seen: list[tuple[nn.Module, int, torch.Size]] = []
        watched = [
            getattr(block, f"conv{number}").register_forward_hook(partial(_note, seen, block, number))
            for block in self.vae.decoder.modules()
            if getattr(block, "per_channel_scale1", None) is not None
            for number in (1, 2)
        ]
        if not watched:
            return
        weights = {f"network.{name}": tensor.to("meta") for name, tensor in (*self.named_parameters(), *self.named_buffers())}
        functional_call(Entry(self, "decode"), weights, (torch.empty(1, *config.latent_shape(0), device="meta"),))
        for hook in watched:
            hook.remove()
        draw = torch.Generator().manual_seed(_NOISE_SEED)
        for block, number, size in seen:
            scale = getattr(block, f"per_channel_scale{number}")
            noise = torch.randn(size, generator=draw, dtype=scale.dtype)[None] * scale
            setattr(block, f"conv{number}", _Noisy(getattr(block, f"conv{number}"), noise[None, :, None]))
            setattr(block, f"per_channel_scale{number}", None)


class _Noisy(nn.Module):
    """A convolution, and what is added to what it makes."""

    noise: Tensor

    def __init__(self, convolution: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.convolution = convolution
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.convolution(x)
        return made + self.noise


def _note(
    seen: list[tuple[nn.Module, int, torch.Size]], block: nn.Module, number: int, _: nn.Module, __: tuple[Tensor, ...], made: Tensor
) -> None:
    """In the order of the forward, which is that of the draws."""
    seen.append((block, number, made.shape[-2:]))

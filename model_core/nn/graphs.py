"""The graphs of the embedded model, with inputs of each of their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from model_core.config import MillraceConfig, TextEncoderConfig
from model_core.graphs import DECODER, DENOISER, ENHANCER, TEXT_ENCODER, Bucket, GraphSpec, Inputs
from model_core.nn.causal_dit import MASKED, CausalDiT, KeyValue, Modulation, TextCondition
from model_core.nn.enhancer import SIZES, Enhancer
from model_core.nn.vae import VAE


def text_encoder_graphs(network: nn.Module, config: TextEncoderConfig) -> list[GraphSpec]:
    """Of a text encoder with an entry point `features(ids, mask)`: one prompt."""
    bucket = Bucket(1, tokens=config.max_tokens)
    return [GraphSpec(TEXT_ENCODER, "features", bucket, network, "features", partial(_features_inputs, config))]


def causal_denoiser_graphs(network: CausalDiT, config: MillraceConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """Of the embedded model's denoiser: `condition`, `modulate` and `hold` in one shape, `denoise` and `commit` for each batch size."""
    g, text = config.dit, config.text
    one = Bucket(1, tokens=text.max_tokens)
    graphs = [
        GraphSpec(DENOISER, "condition", one, network, "condition", partial(_condition_inputs, config)),
        GraphSpec(DENOISER, "modulate", Bucket(config.max_steps), network, "modulate", partial(_modulate_inputs, config)),
    ]
    if g.keys:
        graphs.append(GraphSpec(DENOISER, "hold", Bucket(1, tokens=g.keys), network, "hold", partial(_hold_inputs, config)))
    for rows in batches:
        bucket = Bucket(rows, g.latent_frames, g.latent_height, g.latent_width)
        graphs += [
            GraphSpec(
                DENOISER, "denoise", bucket, network, "advance", partial(_denoise_inputs, config, rows, network.cache_width), shared=True
            ),
            GraphSpec(DENOISER, "commit", bucket, network, "commit", partial(_commit_inputs, config, rows), shared=True),
        ]
    return graphs


def decoder_graphs(network: VAE, config: MillraceConfig) -> list[GraphSpec]:
    """Of the embedded model's decoder: one chunk of one session."""
    bucket = Bucket(1, config.dit.latent_frames, config.dit.latent_height, config.dit.latent_width)
    return [GraphSpec(DECODER, "decode", bucket, network, "render", partial(_decode_inputs, network, config))]


def enhancer_graphs(network: Enhancer, config: MillraceConfig) -> list[GraphSpec]:
    """Of the embedded model's enhancer: one chunk of one session, to twice the frames, and to each size."""
    bucket = Bucket(1, config.frames_per_chunk, config.height, config.width)
    larger = [GraphSpec(ENHANCER, f"enlarge_{size}", bucket, network, f"enlarge_{size}", partial(_shown_inputs, config)) for size in SIZES]
    return [GraphSpec(ENHANCER, "double", bucket, network, "doubled", partial(_double_inputs, config)), *larger]


def _noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _features_inputs(config: TextEncoderConfig, _: torch.dtype) -> Inputs:
    """Any ids will do: the smallest vocabularies have more than these."""
    position = torch.arange(config.max_tokens)[None]
    return (position * 7 % 500).int(), (position < max(1, config.max_tokens // 4)).int()


def _condition_inputs(config: MillraceConfig, _: torch.dtype) -> Inputs:
    length = config.text.max_tokens
    mask = torch.arange(length)[None] < max(1, length // 4)
    return _noise(1, length, config.dit.text_width) * mask[..., None], mask


def _hold_inputs(config: MillraceConfig, _: torch.dtype) -> Inputs:
    """Every other key."""
    return ((torch.arange(config.dit.keys) % 2)[None].float(),)


def _modulate_inputs(config: MillraceConfig, dtype: torch.dtype) -> Inputs:
    return torch.linspace(1, 0.1, config.max_steps), _noise(config.max_steps, config.dit.width, dtype=dtype)


def _denoise_inputs(config: MillraceConfig, rows: int, width: int, dtype: torch.dtype) -> Inputs:
    """Half the window in use, as in a session's first chunks."""
    g, length = config.dit, config.text.max_tokens + config.dit.keys
    span = g.window * g.tokens_per_chunk
    noise = partial(_noise, rows, dtype=dtype)
    unused = torch.arange(span)[None].expand(rows, -1) < span // 2
    step = Modulation(noise(6, g.width, seed=1) * 0.1, noise(2, g.width, seed=2) * 0.1)
    words = [KeyValue(noise(length, width, seed=3), noise(length, width, seed=4))] * g.depth
    text = TextCondition(words, torch.zeros(rows, length, dtype=dtype), noise(g.width, seed=5))
    past = [KeyValue(noise(span, width, seed=6), noise(span, width, seed=7))] * g.depth
    t, t_next = torch.linspace(1, 0.5, rows), torch.linspace(0.8, 0.2, rows)
    return (*_commit_inputs(config, rows, dtype), t, t_next, step, text, past, torch.where(unused, MASKED, 0.0))


def _commit_inputs(config: MillraceConfig, rows: int, _: torch.dtype) -> Inputs:
    g = config.dit
    return (_noise(rows, g.latent_channels, g.latent_frames, g.latent_height, g.latent_width),)


def _decode_inputs(network: VAE, config: MillraceConfig, dtype: torch.dtype) -> Inputs:
    memory = [frame.cpu().to(dtype) for frame in network.new_memory(network.decoder, 1, config.height, config.width)]
    return (*_commit_inputs(config, 1, dtype), memory)


def _frames(config: MillraceConfig) -> torch.Tensor:
    shape = (config.frames_per_chunk, config.height, config.width, 3)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _shown_inputs(config: MillraceConfig, _: torch.dtype) -> Inputs:
    return (_frames(config),)


def _double_inputs(config: MillraceConfig, _: torch.dtype) -> Inputs:
    return _frames(config)[:1], _frames(config)

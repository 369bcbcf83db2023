"""The graphs of the embedded model, with inputs of each of their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from model_core.config import MillraceConfig, TextEncoderConfig
from model_core.graphs import DECODER, DENOISER, TEXT_ENCODER, Bucket, GraphSpec, Inputs
from model_core.nn.causal_dit import MASKED, CausalDiT, KeyValue, Modulation, TextCondition
from model_core.nn.vae import VAE


def text_encoder_graphs(network: nn.Module, config: TextEncoderConfig) -> list[GraphSpec]:
    """Of a text encoder with an entry point `features(ids, mask)`: one prompt."""
    bucket = Bucket(1, tokens=config.max_tokens)
    return [GraphSpec(TEXT_ENCODER, "features", bucket, network, "features", partial(_features_inputs, config))]


def causal_denoiser_graphs(network: CausalDiT, config: MillraceConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """Of the embedded model's denoiser: `condition` and `modulate` in their one shape, `denoise` and `commit` for each batch size."""
    g, text = config.dit, config.text
    one = Bucket(1, tokens=text.max_tokens)
    graphs = [
        GraphSpec(DENOISER, "condition", one, network, "condition", partial(_condition_inputs, config)),
        GraphSpec(DENOISER, "modulate", Bucket(config.max_steps), network, "modulate", partial(_modulate_inputs, config)),
    ]
    for rows in batches:
        bucket = Bucket(rows, g.latent_frames, g.latent_height, g.latent_width)
        graphs += [
            GraphSpec(DENOISER, "denoise", bucket, network, "denoise", partial(_denoise_inputs, config, rows)),
            GraphSpec(DENOISER, "commit", bucket, network, "commit", partial(_commit_inputs, config, rows)),
        ]
    return graphs


def decoder_graphs(network: VAE, config: MillraceConfig) -> list[GraphSpec]:
    """Of the embedded model's decoder: one chunk of one session."""
    bucket = Bucket(1, config.dit.latent_frames, config.dit.latent_height, config.dit.latent_width)
    return [GraphSpec(DECODER, "decode", bucket, network, "decode", partial(_decode_inputs, network, config))]


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _features_inputs(config: TextEncoderConfig) -> Inputs:
    """Any ids will do: the smallest vocabularies have more than these."""
    position = torch.arange(config.max_tokens)[None]
    return position * 7 % 500, (position < max(1, config.max_tokens // 4)).long()


def _condition_inputs(config: MillraceConfig) -> Inputs:
    length = config.text.max_tokens
    mask = torch.arange(length)[None] < max(1, length // 4)
    return _noise(1, length, config.dit.text_width) * mask[..., None], mask


def _modulate_inputs(config: MillraceConfig) -> Inputs:
    return torch.linspace(1, 0.1, config.max_steps), _noise(config.max_steps, config.dit.width)


def _denoise_inputs(config: MillraceConfig, rows: int) -> Inputs:
    """Half the window in use, as in a session's first chunks."""
    g = config.dit
    span = g.window * g.tokens_per_chunk
    unused = torch.arange(span)[None].expand(rows, -1) < span // 2
    step = Modulation(_noise(rows, 6, g.width, seed=1) * 0.1, _noise(rows, 2, g.width, seed=2) * 0.1)
    words = [
        KeyValue(_noise(rows, config.text.max_tokens, g.width, seed=3), _noise(rows, config.text.max_tokens, g.width, seed=4))
    ] * g.depth
    text = TextCondition(words, torch.zeros(rows, config.text.max_tokens), _noise(rows, g.width, seed=5))
    past = [KeyValue(_noise(rows, span, g.width, seed=6), _noise(rows, span, g.width, seed=7))] * g.depth
    return (*_commit_inputs(config, rows), step, text, past, torch.where(unused, MASKED, 0.0))


def _commit_inputs(config: MillraceConfig, rows: int) -> Inputs:
    g = config.dit
    return (_noise(rows, g.latent_channels, g.latent_frames, g.latent_height, g.latent_width),)


def _decode_inputs(network: VAE, config: MillraceConfig) -> Inputs:
    return (*_commit_inputs(config, 1), network.new_memory(network.decoder, 1, config.height, config.width))

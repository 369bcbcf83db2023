"""Wan's causal video autoencoder, decoded as latent frames come: the decoder of all Wan models and of AnyFlow-FAR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from model_core.config import ModelConfig
from model_core.families.common.pixels import bytes_of
from model_core.graphs import DECODER, Bucket, Entry, GraphSpec, Inputs
from model_core.runtimes.load import load_program
from model_core.types import Latents

Features = list[Tensor]  # what the decoder's causal convolutions remember of the frames before
GRAPHS = ("decode_first", "decode_second", "decode")  # of a session's first latent frame, its second, and every other


@dataclass(frozen=True, slots=True)
class WanMemory:
    """Latent frames decoded, which matters up to two, and what the decoder remembers of them."""

    frames: int
    features: Features


class WanDecoder(nn.Module):
    """`AutoencoderKLWan.decode` cut into latent frames, which is how that function works itself: a graph for each kind of frame."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.convolution, self.decoder = vae.post_quant_conv, vae.decoder
        self._patch = vae.config.patch_size
        self.channels = vae.config.z_dim
        statistics = {"mean": vae.config.latents_mean, "deviation": vae.config.latents_std}
        for name, values in statistics.items():
            each = [self.convolution.weight.new_full((), value) for value in values]
            self.register_buffer(name, torch.stack(each).view(1, -1, 1, 1, 1), persistent=False)
        vae.clear_cache()
        self._entries = len(vae._feat_map)  # noqa: SLF001 - what its own `decode` keeps between latent frames
        with torch.inference_mode():
            _, kept = self._frame(torch.zeros(1, self.channels, 1, 2, 2), [None] * self._entries, first=True)
        self._after_first = [None if isinstance(entry, Tensor) else entry for entry in kept]
        self._held = [index for index, entry in enumerate(kept) if entry is not None]

    def first(self, latents: Tensor) -> tuple[Tensor, Features]:
        """Normalised latents `[1, C, 1, H, W]` → pixels uint8 `[1, N, H, W, 3]`, and what is remembered."""
        pixels, kept = self._frame(latents, [None] * self._entries, first=True)
        return pixels, [entry for entry in kept if isinstance(entry, Tensor)]

    def second(self, latents: Tensor, features: Features) -> tuple[Tensor, Features]:
        """The same of the latent frame after the first."""
        entries, given = list(self._after_first), iter(features)
        for index in self._held:
            if entries[index] is None:
                entries[index] = next(given)
        return self._later(latents, entries)

    def later(self, latents: Tensor, features: Features) -> tuple[Tensor, Features]:
        """The same of any other."""
        entries: list[Any] = [None] * self._entries
        for index, feature in zip(self._held, features, strict=True):
            entries[index] = feature
        return self._later(latents, entries)

    def _later(self, latents: Tensor, entries: list[Any]) -> tuple[Tensor, Features]:
        pixels, kept = self._frame(latents, entries, first=False)
        return pixels, [kept[index] for index in self._held]

    def _frame(self, latents: Tensor, entries: list[Any], *, first: bool) -> tuple[Tensor, list[Any]]:
        z = latents.to(self.mean.dtype)
        # Divided by the reciprocal, as diffusers' pipelines do, so that the bits are theirs.
        x = self.convolution(z / (1.0 / self.deviation) + self.mean)
        more = {"first_chunk": True} if first else {}
        frames = self.decoder(x, feat_cache=entries, feat_idx=[0], **more)
        if self._patch is not None:
            frames = unpatchify(frames, patch_size=self._patch)
        return bytes_of(frames.clamp(-1, 1)), entries


def wan_decoder_graphs(network: WanDecoder, config: ModelConfig) -> list[GraphSpec]:
    """One latent frame of one session, in its three kinds."""
    _, height, width = config.latent_size
    bucket = Bucket(1, 1, height, width)
    entries = ("first", "second", "later")
    return [
        GraphSpec(DECODER, name, bucket, network, entry, partial(_inputs, network, bucket, index))
        for index, (name, entry) in enumerate(zip(GRAPHS, entries, strict=True))
    ]


def _inputs(network: WanDecoder, bucket: Bucket, frames: int, dtype: torch.dtype) -> Inputs:
    """After `frames` frames. Features have the shapes that the graphs before would give them, found without computing anything."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, network.channels, 1, bucket.height, bucket.width, generator=draw)
    if frames == 0:
        return (latents,)
    weights = {name: tensor.to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    features: Features = []
    for entry in ("first", "second")[:frames]:
        module = Entry(network, entry)
        given = (latents.to("meta"), features) if features else (latents.to("meta"),)
        _, features = functional_call(module, {f"network.{name}": tensor for name, tensor in weights.items()}, given)
    return latents, [torch.randn(feature.shape, generator=draw).to(dtype) for feature in features]


class WanPainter:
    """`WanDecoder` as a `Painter`: latent frame by latent frame, so a clip decoded chunk by chunk is the clip decoded at once."""

    def __init__(self, vae: Any, config: ModelConfig) -> None:
        self._program = load_program(config, wan_decoder_graphs(WanDecoder(vae), config))

    def fresh(self) -> WanMemory:
        return WanMemory(0, [])

    def paint(self, latents: Latents, memory: WanMemory) -> tuple[NDArray[np.uint8], WanMemory]:
        frames = []
        for number, latent in enumerate(torch.tensor(latents)[None].split(1, 2), memory.frames):
            given = (self._program.put(latent), *([memory.features] if number else []))
            pixels, features = self._program.run(GRAPHS[min(number, 2)], *given).state
            frames.append(pixels)
            memory = WanMemory(number + 1, features)
        return self._program.fetch(torch.cat(frames, 1))[0].numpy(), memory

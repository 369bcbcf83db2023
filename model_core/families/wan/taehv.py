"""TAEHV as a `Painter`, for the families whose latents are Wan's: far faster than the autoencoder, and a little less faithful."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import shards
from model_core.families.common.config import CheckpointConfig
from model_core.graphs import DECODER, Bucket, GraphSpec, Inputs
from model_core.nn.taehv import Memory, TaehvDecoder, of_weights
from model_core.runtimes.load import load_program
from model_core.types import Latents


def load_taehv(config: CheckpointConfig) -> TaehvDecoder:
    """The component that the configuration names, frozen.

    Raises:
        WeightsError: see `Checkpoint.verified`; or it is no TAEHV, or one for other latents or pixels.
    """
    folder = config.checkpoint.verified(config.decoder)
    try:
        tensors = {name: tensor for path in shards(folder) for name, tensor in load_file(path).items()}
        decoder = of_weights(tensors)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder} is no TAEHV: {error}") from error
    for name, got, must in (
        ("latent channels", decoder.channels, config.channels),
        ("frames a latent frame", decoder.growth, config.grid.factor),
        ("pixels a latent position", 8 * decoder.patch, config.factor),
    ):
        if got != must:
            raise WeightsError(f"{folder} has {got} {name}, {config.name} has {must}")
    return decoder.to(getattr(torch, config.checkpoint.dtype)).eval().requires_grad_(requires_grad=False)


def taehv_graphs(decoder: TaehvDecoder, config: CheckpointConfig) -> list[GraphSpec]:
    """One chunk of one session, in each of a chunk's sizes."""
    _, height, width = config.latent_size
    sizes = sorted({config.grid.latents(chunk) for chunk in range(config.grid.chunks or 2)})
    return [
        GraphSpec(DECODER, "decode", Bucket(1, frames, height, width), decoder, "render", partial(_inputs, decoder, config, frames))
        for frames in sizes
    ]


def _inputs(decoder: TaehvDecoder, config: CheckpointConfig, frames: int, dtype: torch.dtype) -> Inputs:
    _, height, width = config.latent_size
    latents = torch.randn(1, config.channels, frames, height, width, generator=torch.Generator().manual_seed(0))
    return latents, [part.cpu().to(dtype) for part in decoder.new_memory(height, width)]


@dataclass(frozen=True, slots=True)
class TaehvMemory:
    """What the network remembers; `begun` once a latent frame has been decoded."""

    blocks: Memory = field(default_factory=list)
    begun: bool = False


class TaehvPainter:
    """`TaehvDecoder` as a `Painter`."""

    def __init__(self, decoder: TaehvDecoder, config: CheckpointConfig) -> None:
        self._decoder, self._size = decoder, config.latent_size[1:]
        self._program = load_program(config, taehv_graphs(decoder, config))

    def fresh(self) -> TaehvMemory:
        return TaehvMemory(self._program.put(self._decoder.new_memory(*self._size)))

    def paint(self, latents: Latents, memory: TaehvMemory) -> tuple[NDArray[np.uint8], TaehvMemory]:
        pixels, after = self._program.run("decode", self._program.put(torch.tensor(latents)[None]), memory.blocks).state
        shown: NDArray[np.uint8] = self._program.fetch(pixels)[0].numpy()
        return shown if memory.begun else shown[self._decoder.growth - 1 :], TaehvMemory(after, begun=True)

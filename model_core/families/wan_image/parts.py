"""Wan 2.1 and 2.2, image to video, on diffusers' networks (https://github.com/Wan-Video).

The clip begins with the image. Its latents, and which frames they stand for, are further channels of what the transformer sees in every
step. Wan 2.1 also attends to features of the image from a CLIP encoder. Both are made once, beside the text; so the stage that denoises
holds neither autoencoder nor image encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from model_core.config import EngineConfig, ModelConfig
from model_core.errors import FieldViolation
from model_core.families.checkpoints.loading import load_module
from model_core.families.common.clip import ClipLeg
from model_core.families.common.config import CheckpointConfig
from model_core.families.interface import Conditioner, Sampler
from model_core.families.wan.parts import WanGraph, WanSampler, embedder, graphs, image_shape, networks, painter
from model_core.types import Conditioning, SessionContext

__all__ = ["conditioner", "embedder", "graphs", "painter", "sampler"]

_CONDITION, _FEATURES = "condition", "features"


def conditioner(config: ModelConfig) -> Conditioner:
    own = _own(config)
    vae = load_module(own.checkpoint, "vae", AutoencoderKLWan)
    processor = eye = None
    if _has_eye(own):
        eye = load_module(own.checkpoint, "image_encoder", CLIPVisionModel)
        processor = CLIPImageProcessorPil.from_pretrained(own.checkpoint.verified("image_processor"), local_files_only=True)
    return WanConditioner(WanImageToVideoPipeline(None, None, vae, None, processor, eye), own)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = _own(config)
    return WanImageSampler(own, engine.batch_buckets, *networks(own))


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


def _has_eye(config: CheckpointConfig) -> bool:
    return config.checkpoint.names("image_encoder")


class WanConditioner:
    """A `Conditioner`. `pipeline` is a diffusers pipeline with autoencoder and image encoder, and no other part."""

    def __init__(self, pipeline: Any, config: CheckpointConfig) -> None:
        self._pipeline, self._config = pipeline, config

    def condition(self, frames: NDArray[np.uint8]) -> Conditioning:
        """Guides: `condition` `[4 + C, F, H, W]`, and with an image encoder `features` `[T, D]`."""
        config, pipeline, device = self._config, self._pipeline, torch.device("cpu")
        image = Image.fromarray(frames[0])
        pixels = pipeline.video_processor.preprocess(image, height=config.height, width=config.width).float()
        shape = config.latent_shape(0)
        unused = torch.zeros(1, *shape)  # instead of noise, which is drawn where the clip is denoised
        _, condition = pipeline.prepare_latents(
            pixels, 1, shape[0], config.height, config.width, config.grid.max_frames, torch.float32, device, latents=unused
        )
        guides = {_CONDITION: condition[0].numpy().copy()}
        if pipeline.image_encoder is not None:
            guides[_FEATURES] = pipeline.encode_image(image, device)[0].float().numpy().copy()
        return Conditioning(guides=guides)


class WanImageSampler(WanSampler):
    """Looks at the guides of `WanConditioner` in every step."""

    def __init__(
        self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, parts: Sequence[WanGraph], boundary_ratio: float | None
    ) -> None:
        super().__init__(config, buckets, schedule, parts, boundary_ratio)
        channels, *size = config.latent_shape(0)
        self._shapes: dict[str, tuple[int, ...]] = {_CONDITION: (config.grid.factor + channels, *size)}
        if parts[0].transformer.config.image_dim is not None:
            self._shapes[_FEATURES] = image_shape(config)

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        guides = {} if context.given is None else {name: guide.shape for name, guide in context.given.guides.items()}
        wrong = () if guides == self._shapes else (FieldViolation("context.given.guides", f"must be {self._shapes}; got {guides}"),)
        return (*super().violations(context), *wrong)

    def guides(self, context: SessionContext) -> dict[str, Tensor]:
        """Zeros where the session has no conditioning, which only happens to warm up."""
        if context.given is None:
            return {name: torch.zeros(1, *shape) for name, shape in self._shapes.items()}
        return {name: torch.tensor(guide)[None] for name, guide in context.given.guides.items()}

    def inputs(self, legs: Sequence[ClipLeg], x_t: Tensor) -> Tensor:
        return torch.cat([x_t, torch.cat([leg.guides[_CONDITION] for leg in legs])], dim=1)

    def more(self, legs: Sequence[ClipLeg]) -> tuple[Tensor, ...]:
        return (torch.cat([leg.guides[_FEATURES] for leg in legs]),) if _FEATURES in self._shapes else ()

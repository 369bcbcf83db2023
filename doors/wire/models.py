"""The served models as a message."""

from __future__ import annotations

import math

from doors.wire import messages
from headrace.v1 import video_pb2 as pb
from service.checks import Catalogue, Limits


def list_models(catalogue: Catalogue, limits: Limits) -> pb.ListModelsResponse:
    """The answer of `ListModels`, in the order of names."""
    return pb.ListModelsResponse(models=[_model(name, catalogue, limits) for name in sorted(catalogue.models)])


def _model(name: str, catalogue: Catalogue, limits: Limits) -> pb.Model:
    config = catalogue.models[name]
    frames = config.grid.max_frames
    longest = math.inf if frames is None else frames / config.fps
    return pb.Model(
        name=name, description=config.description, fps=config.fps, sizes=[pb.Size(width=config.width, height=config.height)],
        default_steps=config.num_steps, min_steps=config.min_steps, max_steps=config.max_steps,
        max_prompt_bytes=limits.max_prompt_bytes, max_prompt_tokens=config.max_prompt_tokens,
        default_guidance=config.guidance, max_guidance=config.max_guidance, default_negative_prompt=config.negative_prompt,
        max_generate_seconds=min(limits.max_generate_seconds, longest), max_stream_seconds=min(limits.max_stream_seconds, longest),
        frames_per_chunk=config.frames_per_chunk, codecs=list(messages.CODECS.values()), default_model=name == catalogue.default,
        enhances=name in catalogue.enhancing, restyles=config.restyles, max_source_bytes=limits.max_source_bytes if config.restyles else 0,
        keys=config.keys,
        image=messages.footage_input("image", config, limits.uploads), video=messages.footage_input("video", config, limits.uploads),
    )  # fmt: skip

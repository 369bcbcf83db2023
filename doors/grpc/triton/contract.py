"""What a video model is to a client of the KServe v2 protocol: its tensors, its version, its configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.tensors import BYTES, FLOATS, INTEGERS, TEXT
from model_core.config import ModelConfig

VERSION = "1"
PLATFORM = "headrace"
DEFAULT_SECONDS = 4.0
FRAMES, VIDEO = "frames", "video"

_TYPES = {
    BYTES: pb.TYPE_STRING, "FP32": pb.TYPE_FP32, "UINT64": pb.TYPE_UINT64, "INT32": pb.TYPE_INT32, "UINT8": pb.TYPE_UINT8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """One input of shape [1].

    Attributes:
        datatype: what metadata say; `accepted` is what may come.
    """

    name: str
    datatype: str
    accepted: frozenset[str]
    optional: bool = True


INPUTS = (
    Input("prompt", BYTES, TEXT, optional=False),
    Input("seconds", "FP32", FLOATS | INTEGERS),
    Input("seed", "UINT64", INTEGERS),
    Input("steps", "INT32", INTEGERS),
    Input("guidance", "FP32", FLOATS | INTEGERS),
    Input("negative_prompt", BYTES, TEXT),
)
MEDIA = {"image": Input("image", BYTES, TEXT), "video": Input("video", BYTES, TEXT)}


def inputs_of(config: ModelConfig) -> tuple[Input, ...]:
    """All inputs of the model; an image or a video only where it takes one."""
    return (*INPUTS, *(MEDIA[kind] for kind in config.media))


def accepted() -> dict[str, frozenset[str]]:
    """Data types by the name of every input that any model has. A model that lacks one says so when the request is checked."""
    return {each.name: each.accepted for each in (*INPUTS, *MEDIA.values())}


def default_seconds(config: ModelConfig) -> float:
    """The length of a video for which a request states none."""
    longest = config.grid.max_frames
    return DEFAULT_SECONDS if longest is None else min(DEFAULT_SECONDS, longest / config.fps)


def outputs_of(config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape by name."""
    return {FRAMES: ("UINT8", (-1, config.height, config.width, 3)), VIDEO: (BYTES, (1,))}


def metadata(config: ModelConfig) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=config.name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[tensor(name=each.name, datatype=each.datatype, shape=[1]) for each in inputs_of(config)],
        outputs=[tensor(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in outputs_of(config).items()],
    )


def configuration(config: ModelConfig) -> pb.ModelConfigResponse:
    """Decoupled: a streamed request has many responses."""
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=config.name,
            platform=PLATFORM,
            backend=PLATFORM,
            input=[
                pb.ModelInput(name=each.name, data_type=_TYPES[each.datatype], dims=[1], optional=each.optional)
                for each in inputs_of(config)
            ],
            output=[
                pb.ModelOutput(name=name, data_type=_TYPES[datatype], dims=shape) for name, (datatype, shape) in outputs_of(config).items()
            ],
            model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
        )
    )

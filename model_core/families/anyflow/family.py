"""AnyFlow-FAR: a clip of limited length, made chunk by chunk, by a transformer that was made of Wan's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.chunk_grid import ChunkGrid
from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.networks import Network, Shape, width_of, words
from model_core.families.checkpoints.settings import COUNT, NUMBER, TEXT, each
from model_core.families.common.config import Attention
from model_core.families.common.family import Family, Kind, Streaming, Tiny
from model_core.families.common.solvers import SolvedBy
from model_core.families.common.text_encoders import UMT5
from model_core.families.wan.image_encoder import check_eye
from model_core.families.wan.networks import WAN_PARTS, WAN_SETTINGS, WAN_VAE, decoder_reach, wan_shapes

_FIRST, _REST = 1, 3  # latent frames of a chunk
_SHIFT = 5.0  # in the fingerprint; the noise schedule has its own


def _shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    large = (width_of(settings), settings["in_channels"], *settings["compressed_patch_size"])
    return wan_shapes(settings) | {"far_patch_embedding.weight": large}


TRANSFORMER = Network(
    name="AnyFlowFARTransformer3DModel", text_width="text_dim", blocks="blocks.", shapes=_shapes,
    parts=WAN_PARTS | words("far_patch_embedding"),
    settings=WAN_SETTINGS | {
        "compressed_patch_size": (each(COUNT), [1, 4, 4]), "full_chunk_limit": (COUNT, 3), "gate_value": (NUMBER, 0.25),
        "deltatime_type": (TEXT, "r"), "chunk_partition": (each(COUNT), [1, 3, 3, 3, 3, 3, 3, 2]),
    },
    words={"deltatime_type": ("r", "t-r")},
    passed_over={"qk_norm": "rms_norm_across_heads"},
)  # fmt: skip


def _no_settings(_: dict[str, Any]) -> dict[str, Any]:
    """All that it needs is in its components."""
    return {}


def _sizes(_: dict[str, Any]) -> tuple[int, int]:
    return _FIRST, _REST


def _attention(_: dict[str, Any], grid: ChunkGrid, __: int) -> tuple[Attention, int]:
    """It sees its whole session, whose length is limited."""
    return Attention(shift=_SHIFT), grid.chunks or 0


def _check_transformer(checkpoint: Checkpoint, component: str) -> None:
    """Raises WeightsError: it was made for chunks of other sizes. The last one may be shorter."""
    check_eye(checkpoint, component)
    partition = checkpoint.settings(component).get("chunk_partition")
    if partition and not (partition[0] == _FIRST and all(size == _REST for size in partition[1:-1]) and partition[-1] <= _REST):
        raise WeightsError(f"transformer/config.json has chunk_partition {partition}; only {_FIRST} and then {_REST} each time is served")


FAMILY = Family(
    name="anyflow-far",
    package=__package__,
    kind=Kind(
        description="AnyFlow-FAR: video up to a length, made chunk by chunk and steered while it plays.", pipelines=("AnyFlowFARPipeline",),
        fps=16, frames=81, steps=4, guidance=1.0, max_tokens=512, taehv=True, media=("image", "video"), media_frames=49,
        streaming=Streaming(read=_no_settings, sizes=_sizes, attention=_attention, reach=decoder_reach),
        text=UMT5, vae=WAN_VAE, transformer=TRANSFORMER, solved=SolvedBy(names=("FlowMapEulerDiscreteScheduler",)),
        check_transformer=_check_transformer,
    ),
    tiny=(Tiny(name="anyflow-far", height=32, width=64, frames=33),),
)  # fmt: skip

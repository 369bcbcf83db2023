"""The configuration of a model that comes as a checkpoint: read from the folder, without torch.

A deployment may set what a checkpoint leaves open: size, length, rate, steps, guidance. Each family has defaults in `KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_core.config import ChunkGrid, Media, ModelConfig
from model_core.errors import WeightsError
from model_core.families.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is true of every checkpoint of a family.

    Attributes:
        description: a line for ListModels.
        pipelines: classes that `model_index.json` may name.
        streaming: chunk after chunk without end; otherwise a clip of fixed length, made at once.
        fps, frames, steps, guidance: defaults. `frames` is the length of a clip, or of a streaming model's longest session; 0 for no end.
        max_tokens: of text.
        multiple: height and width must be multiples of it.
        first, rest: latent frames of a streaming model's chunks.
        window: chunks that a streaming model's next one is made from; 0 for all.
        media, needs_media: what a session may be given besides its prompt, and whether it must be given one of them.
        media_frames: of the longest video that it may be given.
    """

    description: str
    pipelines: tuple[str, ...]
    fps: int
    frames: int
    steps: int
    guidance: float
    max_tokens: int
    multiple: int
    streaming: bool = False
    first: int = 0
    rest: int = 0
    window: int = 0
    media: tuple[Media, ...] = ()
    needs_media: bool = False
    media_frames: int = 1


KINDS = {
    "wan": Kind(
        description="Wan text-to-video: a clip made at once.", pipelines=("WanPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, multiple=16,
    ),
    "ltx": Kind(
        description="LTX-Video text-to-video: a clip made at once.", pipelines=("LTXPipeline",),
        fps=25, frames=161, steps=50, guidance=3.0, max_tokens=128, multiple=32,
    ),
    "cogvideox": Kind(
        description="CogVideoX text-to-video: a clip made at once.", pipelines=("CogVideoXPipeline",),
        fps=8, frames=49, steps=50, guidance=6.0, max_tokens=226, multiple=16,
    ),
    "wan-image": Kind(
        description="Wan image-to-video: a clip made at once, which begins with a given image.", pipelines=("WanImageToVideoPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, multiple=16, media=("image",), needs_media=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a deployment says of a model that comes as a checkpoint; 0 and empty leave it to the checkpoint and its family."""

    checkpoint: Checkpoint
    family: str = ""
    name: str = ""
    height: int
    width: int
    frames: int = 0
    fps: int = 0
    steps: int = 0
    guidance: float | None = None
    negative_prompt: str = ""
    skip_threshold: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig(ModelConfig):
    """A model that comes as a checkpoint.

    Attributes:
        family_name: a key of `KINDS`.
        checkpoint, identity: where its weights are, and what they are.
        chunk_grid: how its latents fall into chunks.
        channels, factor: of the latents, and pixels a latent position along height and width.
        window: see `Kind`.
        guidance: scale of classifier-free guidance; 1 for none.
        max_tokens: of text.
        negative_prompt: what guidance leads away from.
        skip_threshold: see `model_core.families.skipping`; 0 for no skipping. Streaming models have few steps and skip none.
    """

    family_name: str
    checkpoint: Checkpoint
    identity: str
    chunk_grid: ChunkGrid
    channels: int
    factor: int
    window: int
    guidance: float
    max_tokens: int
    negative_prompt: str
    skip_threshold: float

    @property
    def family(self) -> str:
        return self.family_name

    @property
    def grid(self) -> ChunkGrid:
        return self.chunk_grid

    @property
    def latent_size(self) -> tuple[int, int, int]:
        return self.channels, self.height // self.factor, self.width // self.factor

    @property
    def context_chunks(self) -> int:
        return self.window

    @property
    def texts(self) -> int:
        """How many texts steer a clip: with guidance the prompt and what it leads away from, else the prompt."""
        return 2 if self.guidance > 1 else 1


def describe(choice: Choice) -> CheckpointConfig:
    """The configuration of what `choice` names.

    Raises:
        WeightsError: the checkpoint is missing, incomplete, or of another family; or a size or length does not fit it.
    """
    index = choice.checkpoint.index()
    family = _family(choice, index.get("_class_name"))
    kind = KINDS[family]
    vae = choice.checkpoint.settings("vae")
    factor, stretch = _compression(vae)
    for name, size in (("height", choice.height), ("width", choice.width)):
        if size <= 0 or size % kind.multiple:
            raise WeightsError(f"{name} must be a multiple of {kind.multiple} for {family}; got {size}")
    frames = choice.frames or kind.frames
    if (frames - 1) % stretch:
        raise WeightsError(f"frames must be 1 more than a multiple of {stretch} for {family}; got {frames}")
    folder = choice.checkpoint.folder.rstrip("/").rpartition("/")[2]
    steps = choice.steps or kind.steps
    return CheckpointConfig(
        name=choice.name or folder, description=kind.description, fps=choice.fps or kind.fps, height=choice.height, width=choice.width,
        num_steps=steps, max_steps=max(steps, 100), family_name=family, checkpoint=choice.checkpoint, identity=choice.checkpoint.identity(),
        chunk_grid=_grid(kind, frames, stretch), channels=_channels(vae), factor=factor, window=kind.window if kind.streaming else 0,
        guidance=kind.guidance if choice.guidance is None else choice.guidance, max_tokens=kind.max_tokens,
        negative_prompt=choice.negative_prompt, skip_threshold=choice.skip_threshold,
        media=kind.media, needs_media=kind.needs_media, media_frames=kind.media_frames,
    )  # fmt: skip


def _family(choice: Choice, pipeline: object) -> str:
    fitting = [name for name, kind in KINDS.items() if pipeline in kind.pipelines]
    if choice.family and choice.family not in KINDS:
        raise WeightsError(f"family must be one of {', '.join(sorted(KINDS))}; got {choice.family!r}")
    if choice.family and choice.family in fitting:
        return choice.family
    if choice.family or not fitting:
        wanted = choice.family or f"any of {', '.join(sorted(KINDS))}"
        raise WeightsError(f"{choice.checkpoint.folder} is a checkpoint of {pipeline!r}, which is not {wanted}")
    return fitting[0]


def _grid(kind: Kind, frames: int, stretch: int) -> ChunkGrid:
    """Video autoencoders make one frame of the first latent frame, and `stretch` of every other."""
    latents = 1 + (frames - 1) // stretch
    if not kind.streaming:
        return ChunkGrid(first=latents, rest=latents, factor=stretch, head=1, chunks=1)
    return ChunkGrid(first=kind.first, rest=kind.rest, factor=stretch, head=1)


def _compression(vae: dict[str, Any]) -> tuple[int, int]:
    """Pixels a latent position, and frames a latent frame."""
    match vae.get("_class_name"):
        case "AutoencoderKLLTXVideo":
            halvings = sum(vae.get("spatio_temporal_scaling", (True, True, True, False)))
            return vae.get("patch_size", 4) * 2**halvings, vae.get("patch_size_t", 1) * 2**halvings
        case "AutoencoderKLCogVideoX":
            return 2 ** (len(vae["block_out_channels"]) - 1), int(vae.get("temporal_compression_ratio", 4))
    if "scale_factor_spatial" in vae or "temperal_downsample" in vae:
        return vae.get("scale_factor_spatial", 8), vae.get("scale_factor_temporal", 4)
    raise WeightsError(f"vae/config.json describes a {vae.get('_class_name')!r}, which no family here decodes")


def _channels(vae: dict[str, Any]) -> int:
    return int(vae.get("z_dim") or vae["latent_channels"])

"""The configuration of a model that comes as a checkpoint: read from the folder, without torch.

A deployment may set what a checkpoint leaves open: size, length, rate, steps, guidance. Each family has defaults in `KINDS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from model_core.config import ChunkGrid, Media, ModelConfig
from model_core.errors import WeightsError
from model_core.families.checkpoint import Checkpoint
from model_core.families.solvers import Solving, solving

TAEHV_REACH = 8  # latent frames: three memory blocks at twice the rate of latents, six at their own
# Of Self-Forcing, where a checkpoint does not say: latent frames that attention spans, and the shift of its times.
_SEEN, _SHIFT = 21, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is true of every checkpoint of a family.

    Attributes:
        description: a line for ListModels.
        pipelines: classes that `model_index.json` may name.
        streaming: chunk after chunk without end; otherwise a clip of fixed length, made at once.
        fps, frames, steps, guidance: defaults. `frames` is the length of a clip, or of a streaming model's longest session; 0 for no end.
            A checkpoint whose autoencoder makes other lengths has the next shorter one.
        height, width: defaults, rounded down to what the checkpoint can make.
        max_tokens: of text.
        multiple: height and width must be multiples of it.
        joined: latent frames after a clip's first that only come together.
        first, rest: latent frames of a streaming model's chunks; in `causal-wan` the checkpoint may say otherwise.
        media, needs_media: what a session may be given besides its prompt, and whether it must be given one of them.
        media_frames: of the longest video that it may be given.
        taehv: its latents are Wan's, which a TAEHV may decode.
    """

    description: str
    pipelines: tuple[str, ...]
    fps: int
    frames: int
    steps: int
    guidance: float
    max_tokens: int
    multiple: int
    height: int = 480
    width: int = 832
    joined: int = 1
    streaming: bool = False
    first: int = 0
    rest: int = 0
    media: tuple[Media, ...] = ()
    needs_media: bool = False
    media_frames: int = 1
    taehv: bool = False


KINDS = {
    "wan": Kind(
        description="Wan text-to-video: a clip made at once.", pipelines=("WanPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, multiple=16, taehv=True,
    ),
    "ltx": Kind(
        description="LTX-Video text-to-video: a clip made at once.", pipelines=("LTXPipeline",),
        fps=25, frames=161, steps=50, guidance=3.0, max_tokens=128, multiple=32, height=512, width=704,
    ),
    "cogvideox": Kind(
        description="CogVideoX text-to-video: a clip made at once.", pipelines=("CogVideoXPipeline",),
        fps=8, frames=49, steps=50, guidance=6.0, max_tokens=226, multiple=16, height=480, width=720, joined=2,
    ),
    "wan-image": Kind(
        description="Wan image-to-video: a clip made at once, which begins with a given image.", pipelines=("WanImageToVideoPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, multiple=16, media=("image",), needs_media=True,
        taehv=True,
    ),
    # Its transformer replaces that of a Wan folder, so `family` must name it unless model_index.json does.
    "causal-wan": Kind(
        description="Causal Wan 2.1 (Self-Forcing, CausVid, LongLive): video without end, steered while it plays.",
        pipelines=("CausalWanPipeline", "WanPipeline"),
        fps=16, frames=0, steps=4, guidance=1.0, max_tokens=512, multiple=16, streaming=True, first=3, rest=3, taehv=True,
    ),
    "anyflow-far": Kind(
        description="AnyFlow-FAR: video up to a length, made chunk by chunk and steered while it plays.", pipelines=("AnyFlowFARPipeline",),
        fps=16, frames=81, steps=4, guidance=1.0, max_tokens=512, multiple=32, streaming=True, first=1, rest=3, taehv=True,
        media=("image", "video"), media_frames=49,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What the next chunk of a streaming model sees, in chunks.

    Attributes:
        window: the last ones; 0 for all.
        sink: and the session's first ones, for good.
        renewal: the cache is made anew from the last `window` chunks whenever a multiple of this many is done, so that it depends on no
            chunk older than the suffix; 0 for never.
        shift: of the times of the steps, toward noise.
    """

    window: int = 0
    sink: int = 0
    renewal: int = 0
    shift: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a deployment says of a model that comes as a checkpoint; 0 and empty leave it to the checkpoint and its family."""

    checkpoint: Checkpoint
    family: str = ""
    name: str = ""
    height: int = 0
    width: int = 0
    frames: int = 0
    fps: int = 0
    steps: int = 0
    guidance: float | None = None
    negative_prompt: str = ""
    skip_threshold: float = 0.0
    decoder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig(ModelConfig):
    """A model that comes as a checkpoint.

    Attributes:
        family_name: a key of `KINDS`.
        checkpoint, identity: where its weights are, and what they are.
        chunk_grid: how its latents fall into chunks.
        channels, factor: of the latents, and pixels a latent position along height and width.
        window: chunks in the suffix: what the next chunk is made from, and its frames.
        decoder_window: chunks of it that matter to its frames.
        attention: of a streaming model.
        decoder: the component that decodes: `vae`, or the folder of a TAEHV.
        frame_rate: frames a second that the network is told of, whatever rate they are played at.
        solving: how the steps of a clip are taken.
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
    decoder_window: int
    attention: Attention
    decoder: str
    frame_rate: int
    solving: Solving = field(default_factory=Solving)
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

    def forwards(self, num_steps: int) -> int:
        return self.solving.forwards(num_steps)

    @property
    def decoder_chunks(self) -> int:
        return self.decoder_window

    @property
    def sink_chunks(self) -> int:
        return self.attention.sink


def describe(choice: Choice) -> CheckpointConfig:
    """The configuration of what `choice` names.

    Raises:
        WeightsError: the checkpoint is missing, incomplete, or of another family; or a size or length does not fit it.
    """
    index = choice.checkpoint.index()
    family = _family(choice, index.get("_class_name"))
    kind = _version(family, index, choice.checkpoint)
    vae = choice.checkpoint.settings("vae")
    factor, stretch = _compression(vae)
    height, width = (choice.height or _fitting(kind.height, kind.multiple, 0), choice.width or _fitting(kind.width, kind.multiple, 0))
    for name, size in (("height", height), ("width", width)):
        if size <= 0 or size % kind.multiple:
            raise WeightsError(f"{name} must be a multiple of {kind.multiple} for {family}; got {size}")
    apart = stretch * kind.joined
    frames = choice.frames or (kind.frames and _fitting(kind.frames, apart, 1))
    if frames and (frames - 1) % apart:
        raise WeightsError(f"frames must be 1 more than a multiple of {apart} for {family}; got {frames}")
    guidance = kind.guidance if choice.guidance is None else choice.guidance
    if kind.streaming and guidance != 1:
        raise WeightsError(f"guidance must be 1 for {family}, which was distilled to need none; got {guidance:g}")
    if choice.decoder and not kind.taehv:
        raise WeightsError(f"decoder must be empty for {family}, whose latents no TAEHV here decodes; got {choice.decoder!r}")
    grid = _grid(kind, index, frames, stretch)
    if grid.max_frames not in (None, frames):
        raise WeightsError(f"frames must fill whole chunks for {family}: the next length is {grid.max_frames}; got {frames}")
    attention, window, decoder_window = Attention(), 0, 0
    if kind.streaming:
        decoder_window = -(-(TAEHV_REACH if choice.decoder else wan_vae_reach(vae)) // grid.rest)
        attention, window = _attention(index, grid, decoder_window)
    folder = choice.checkpoint.folder.rstrip("/").rpartition("/")[2]
    solver = Solving() if family == "causal-wan" else solving(family, choice.checkpoint.settings("scheduler"))
    steps, fps = choice.steps or kind.steps, choice.fps or kind.fps
    if steps < solver.min_steps:
        raise WeightsError(f"steps must be at least {solver.min_steps} with this checkpoint's {solver.name}; got {steps}")
    return CheckpointConfig(
        name=choice.name or folder, description=kind.description, fps=fps, frame_rate=fps, height=height, width=width,
        num_steps=steps, min_steps=solver.min_steps, max_steps=max(steps, 100), solving=solver,
        family_name=family, checkpoint=choice.checkpoint, identity=choice.checkpoint.identity(),
        chunk_grid=grid, channels=_channels(vae), factor=factor, window=window, decoder_window=decoder_window, attention=attention,
        decoder=choice.decoder or "vae", guidance=guidance, max_tokens=kind.max_tokens, negative_prompt=choice.negative_prompt,
        skip_threshold=choice.skip_threshold, media=kind.media, needs_media=kind.needs_media, media_frames=kind.media_frames,
    )  # fmt: skip


def _version(family: str, index: dict[str, Any], checkpoint: Checkpoint) -> Kind:
    """The family's defaults, or those of a version of it that has its own."""
    kind = KINDS[family]
    if family == "cogvideox" and checkpoint.settings("transformer").get("patch_size_t"):  # CogVideoX 1.5
        return replace(kind, fps=16, frames=81, height=768, width=1360)
    if family == "wan" and index.get("expand_timesteps"):  # Wan 2.2 TI2V 5B
        return replace(kind, fps=24, frames=121, height=704, width=1280)
    return kind


def _fitting(most: int, apart: int, first: int) -> int:
    """The largest of `first`, `first + apart` and so on that is not above `most`."""
    return most - (most - first) % apart


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


def _grid(kind: Kind, index: dict[str, Any], frames: int, stretch: int) -> ChunkGrid:
    """Video autoencoders make one frame of the first latent frame, and `stretch` of every other."""
    latents = 1 + (frames - 1) // stretch
    if not kind.streaming:
        return ChunkGrid(first=latents, rest=latents, factor=stretch, head=1, chunks=1)
    block = index.get("num_frame_per_block")
    first, rest = (block, block) if block else (kind.first, kind.rest)
    if not frames:
        return ChunkGrid(first=first, rest=rest, factor=stretch, head=1)
    further, last = divmod(max(0, latents - first), rest)
    # A model whose chunks are all alike makes the whole last one, and a part of it is shown.
    return ChunkGrid(first=first, rest=rest, factor=stretch, head=1, chunks=1 + further + bool(last), last=last if first != rest else 0)


def _attention(index: dict[str, Any], grid: ChunkGrid, decoder_window: int) -> tuple[Attention, int]:
    """What the denoiser sees, and chunks in the suffix.

    A model of limited length sees all chunks. Of one without end, `model_index.json` may say so as the authors' own configuration files
    do: `local_attn_size` and `sink_size` in latent frames, `timestep_shift`. A commit sees the chunks before it, which saw the chunks
    before them, without end; so the cache is renewed once as many chunks are done as the suffix, long enough for the decoder, allows.
    """
    if "local_attn_size" not in index and grid.chunks is not None and not index.get("sink_size"):
        return Attention(shift=float(index.get("timestep_shift", _SHIFT))), grid.chunks
    seen, sink = (int(index.get(name, default)) // grid.rest for name, default in (("local_attn_size", _SEEN), ("sink_size", 0)))
    window = seen - 1 - sink
    if window < 1:
        raise WeightsError(f"local_attn_size must leave room for a chunk of {grid.rest} latent frames, the one before it and the sink")
    suffix = max(2 * window, decoder_window)
    shift = float(index.get("timestep_shift", _SHIFT))
    return Attention(window=window, sink=sink, renewal=suffix - window + 1, shift=shift), suffix


def wan_vae_reach(vae: dict[str, Any]) -> int:
    """Latent frames before the newest that its frames depend on: each causal convolution of three frames sees two more at its own rate."""
    rate, frames, blocks = 1.0, 2.0 + 4 * 2, vae.get("num_res_blocks", 2) + 1  # the first convolution and the middle's four
    upsampled = [*reversed(vae.get("temperal_downsample", [False, True, True])), False]
    for grows in upsampled:
        frames += (2 * blocks * 2 + (2 if grows else 0)) / rate
        rate *= 2 if grows else 1
    return math.ceil(frames + 2 / rate)


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

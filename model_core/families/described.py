"""The configuration of a model that comes as a checkpoint: read from the folder, without torch.

A deployment may set what a checkpoint leaves open: size, length, rate, steps, guidance. Defaults are in `model_core.families.common.family`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from model_core.config import ChunkGrid, ModelConfig, chosen
from model_core.errors import WeightsError
from model_core.families.causal_wan.settings import Attention, attention_of, block_of, settings_of
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.whole import (
    check_index,
    check_pair,
    check_patches,
    check_text_encoder,
    check_transformer,
    check_weights,
    component_settings,
    patches_of,
)
from model_core.families.common.family import KINDS, Kind, kind_of
from model_core.families.common.solvers import Solving, solving
from model_core.families.ltx.networks import compression
from model_core.families.wan import image_encoder

TAEHV_REACH = 8  # latent frames: three memory blocks at twice the rate of latents, six at their own
_MAX_STEPS = 100  # of a request
_MAX_GUIDANCE = 20.0  # beyond it, clips of any of these models are garish


_ATTENTION = ("window", "sink", "renewal", "shift", "steps", "context_noise", "averaged")  # in the fingerprint


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
        checkpoint: where its weights are.
        components: of it, as far as they are used, with the classes of their networks.
        chunk_grid: how its latents fall into chunks.
        channels, factor: of the latents, and pixels a latent position along height and width.
        window: chunks in the suffix: what the next chunk is made from, and its frames.
        decoder_window: chunks of it that matter to its frames.
        attention: of a streaming model.
        decoder: the component that decodes: `vae`, or the folder of a TAEHV.
        frame_rate: frames a second that the network is told of, whatever rate they are played at.
        solving: how the steps of a clip are taken.
        max_tokens: of text.
        skip_threshold: see `model_core.families.common.skipping`; 0 for no skipping. Streaming models have few steps and skip none.
    """

    family_name: str
    checkpoint: Checkpoint
    components: tuple[tuple[str, str], ...]
    chunk_grid: ChunkGrid
    channels: int
    factor: int
    window: int
    decoder_window: int
    attention: Attention
    decoder: str
    frame_rate: int
    solving: Solving = field(default_factory=Solving)
    max_tokens: int
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
    def restyles(self) -> bool:
        return KINDS[self.family_name].streaming

    @property
    def source_context(self) -> int:
        """A chunk, and a frame that has a latent frame to itself."""
        return 1 + self.grid.rest * self.grid.factor if self.restyles else 0

    @property
    def max_prompt_tokens(self) -> int:
        return self.max_tokens

    def forwards(self, num_steps: int) -> int:
        return self.solving.forwards(num_steps)

    @property
    def decoder_chunks(self) -> int:
        return self.decoder_window

    @property
    def sink_chunks(self) -> int:
        return self.attention.sink

    def identity(self) -> dict[str, object]:
        made_of = {
            "weights": self.checkpoint.identity(name for name, _ in self.components), "dtype": self.checkpoint.dtype,
            "decoder": self.decoder == "vae", "attention": chosen(self.attention, _ATTENTION), "max_tokens": self.max_tokens,
            "skip_threshold": self.skip_threshold,
        }  # fmt: skip
        # Only LTX-Video's network is told of a rate.
        return super(CheckpointConfig, self).identity() | made_of | ({"frame_rate": self.frame_rate} if self.family_name == "ltx" else {})


def describe(choice: Choice) -> CheckpointConfig:
    """The configuration of what `choice` names.

    Raises:
        WeightsError: the checkpoint is missing, incomplete, or of another family; its parts do not fit each other; it has a setting that is
            not served; or a size or length does not fit it. What only the weights themselves show is said when they are loaded.
    """
    checkpoint = choice.checkpoint
    index = checkpoint.index()
    family = _family(choice, index.get("_class_name"))
    components = _components(checkpoint, KINDS[family])
    vae = component_settings(checkpoint, "vae", KINDS[family].vae)
    transformer = component_settings(checkpoint, "transformer", KINDS[family].transformer)
    check_patches(transformer, "transformer/config.json")
    kind, decoder = kind_of(family, index, transformer), choice.decoder or "vae"
    factor, stretch = compression(vae)
    down, across = (factor * patch for patch in patches_of(transformer))
    height, width = choice.height or _fitting(kind.height, down, 0), choice.width or _fitting(kind.width, across, 0)
    for name, size, multiple in (("height", height, down), ("width", width, across)):
        if size <= 0 or size % multiple:
            raise WeightsError(f"{name} must be a multiple of {multiple} for {family}; got {size}")
    apart = stretch * kind.joined
    frames = choice.frames or (kind.frames and _fitting(kind.frames, apart, 1))
    if frames and (frames - 1) % apart:
        raise WeightsError(f"frames must be 1 more than a multiple of {apart} for {family}; got {frames}")
    guidance = _guidance(choice, family, kind)
    if decoder != "vae" and not kind.taehv:
        raise WeightsError(f"decoder must be empty for {family}, whose latents no TAEHV here decodes; got {choice.decoder!r}")
    settings = settings_of(index) if family == "causal-wan" else {}
    grid = _grid(kind, settings, frames, stretch)
    if grid.max_frames not in (None, frames):
        raise WeightsError(f"frames must fill whole chunks for {family}: the next length is {grid.max_frames}; got {frames}")
    attention, window, decoder_window = Attention(), 0, 0
    if kind.streaming:
        decoder_window = -(-(wan_vae_reach(vae) if decoder == "vae" else TAEHV_REACH) // grid.rest)
        attention, window = attention_of(settings, grid, decoder_window)
    _check_parts(checkpoint, kind, _channels(vae), stretch)
    _check_partition(kind, transformer.get("chunk_partition"))
    components.setdefault(decoder, "")
    check_weights(checkpoint, components, causal=family == "causal-wan", averaged=attention.averaged)
    solver = _solver(checkpoint, family) if kind.schedule else Solving()
    steps, fps = choice.steps or len(attention.steps) or kind.steps, choice.fps or kind.fps
    most = len(attention.steps) or min(max(steps, _MAX_STEPS), solver.max_steps)
    if steps < solver.min_steps:
        raise WeightsError(f"steps must be at least {solver.min_steps} with this checkpoint's {solver.name}; got {steps}")
    if steps > most:
        why = "the times in the checkpoint's denoising_step_list" if attention.steps else f"which its {solver.name} has"
        raise WeightsError(f"steps must be at most {most}, {why}; got {steps}")
    return CheckpointConfig(
        name=choice.name or checkpoint.folder.rstrip("/").rpartition("/")[2], description=kind.description, fps=fps, frame_rate=fps,
        height=height, width=width, num_steps=steps, min_steps=solver.min_steps, max_steps=most, solving=solver, family_name=family,
        checkpoint=checkpoint, components=tuple(components.items()), chunk_grid=grid, channels=_channels(vae), factor=factor,
        window=window, decoder_window=decoder_window, attention=attention, decoder=decoder, guidance=guidance,
        max_guidance=1.0 if guidance == 1 else max(guidance, _MAX_GUIDANCE),  # it is turned off where a model was distilled to need none
        max_tokens=kind.max_tokens, negative_prompt=choice.negative_prompt, skip_threshold=choice.skip_threshold,
        media=kind.media, needs_media=kind.needs_media, media_frames=kind.media_frames,
    )  # fmt: skip


def _components(checkpoint: Checkpoint, kind: Kind) -> dict[str, str]:
    """Those that are used, with the classes of their networks."""
    needed = {"tokenizer": "", "text_encoder": kind.text, "vae": kind.vae, "transformer": kind.transformer}
    needed |= {"scheduler": ""} if kind.schedule else {}
    check_index(checkpoint, needed, kind.optional, kind.settings)
    classes = {"transformer_2": kind.transformer, "image_encoder": image_encoder.CLASS}
    return needed | {name: classes.get(name, "") for name in kind.optional if name != "scheduler" and checkpoint.names(name)}


def _check_parts(checkpoint: Checkpoint, kind: Kind, channels: int, stretch: int) -> None:
    """Raises WeightsError: what the components say of themselves does not go together."""
    width = check_text_encoder(checkpoint, kind.text)
    if kind.needs_media and checkpoint.index().get("expand_timesteps"):
        raise WeightsError(f"{checkpoint.folder} gives each token a timestep (Wan 2.2 TI2V), which is not served from an image")
    if "transformer_2" in kind.optional:
        check_pair(checkpoint)
    seen = 2 * channels + stretch if kind.needs_media else channels  # the latents, those of the image, and which frames it stands for
    for name in ("transformer", "transformer_2"):
        if checkpoint.names(name):
            check_transformer(checkpoint, name, kind.transformer, width, (seen, channels))
            eye, image_dim = checkpoint.names("image_encoder"), checkpoint.settings(name).get("image_dim")
            if eye != (image_dim is not None):
                raise WeightsError(
                    f"{name}/config.json has image_dim {image_dim}, and model_index.json names {'an' if eye else 'no'} image_encoder: "
                    "they go together"
                )
            if eye and image_dim is not None:
                image_encoder.check_image_encoder(checkpoint, image_dim)


def _solver(checkpoint: Checkpoint, family: str) -> Solving:
    settings, named = checkpoint.settings("scheduler"), checkpoint.index()["scheduler"][1]
    found = solving(family, settings)
    if named != found.name:  # diffusers goes by the index, and would solve with another class than its settings are made for
        raise WeightsError(f"model_index.json says that scheduler is a {named!r}; scheduler/scheduler_config.json says {found.name!r}")
    return found


def _fitting(most: int, apart: int, first: int) -> int:
    """The largest of `first`, `first + apart` and so on that is not above `most`."""
    return most - (most - first) % apart


def _check_partition(kind: Kind, partition: list[int] | None) -> None:
    """Raises WeightsError: AnyFlow-FAR's transformer was made for chunks of other sizes. The last one may be shorter."""
    first, rest = kind.first, kind.rest
    if partition and not (partition[0] == first and all(size == rest for size in partition[1:-1]) and partition[-1] <= rest):
        raise WeightsError(f"transformer/config.json has chunk_partition {partition}; only {first} and then {rest} each time is served")


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


def _guidance(choice: Choice, family: str, kind: Kind) -> float:
    guidance = kind.guidance if choice.guidance is None else choice.guidance
    if kind.streaming and guidance != 1:
        raise WeightsError(f"guidance must be 1 for {family}, which was distilled to need none; got {guidance:g}")
    if guidance == 1 and choice.negative_prompt:
        raise WeightsError(f"negative_prompt must be empty where guidance is 1, which looks at none; got {choice.negative_prompt[:64]!r}")
    return guidance


def _grid(kind: Kind, settings: dict[str, Any], frames: int, stretch: int) -> ChunkGrid:
    """Video autoencoders make one frame of the first latent frame, and `stretch` of every other."""
    latents = 1 + (frames - 1) // stretch
    if not kind.streaming:
        return ChunkGrid(first=latents, rest=latents, factor=stretch, head=1, chunks=1)
    first, rest = (kind.first, kind.rest) if kind.rest else (block_of(settings),) * 2
    if not frames:
        return ChunkGrid(first=first, rest=rest, factor=stretch, head=1)
    further, last = divmod(max(0, latents - first), rest)
    # A model whose chunks are all alike makes the whole last one, and a part of it is shown.
    return ChunkGrid(first=first, rest=rest, factor=stretch, head=1, chunks=1 + further + bool(last), last=last if first != rest else 0)


def wan_vae_reach(vae: dict[str, Any]) -> int:
    """Latent frames before the newest that its frames depend on: each causal convolution of three frames sees two more at its own rate."""
    rate, frames, blocks = 1.0, 2.0 + 4 * 2, vae["num_res_blocks"] + 1  # the first convolution and the middle's four
    upsampled = [*reversed(vae["temperal_downsample"]), False]
    for grows in upsampled:
        frames += (2 * blocks * 2 + (2 if grows else 0)) / rate
        rate *= 2 if grows else 1
    return math.ceil(frames + 2 / rate)


def _channels(vae: dict[str, Any]) -> int:
    return int(vae["z_dim"] if "z_dim" in vae else vae["latent_channels"])

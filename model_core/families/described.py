"""The configuration of a model that comes as a checkpoint: read from the folder, without torch.

A deployment may set what a checkpoint leaves open: size, length, rate, steps, guidance. Defaults are those of the checkpoint's family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_core.chunk_grid import ChunkGrid
from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.index import IndexRules, check_index
from model_core.families.checkpoints.networks import Network, check_patches
from model_core.families.checkpoints.whole import (
    check_text_encoder,
    check_transformer,
    check_weights,
    component_settings,
    patches_of,
)
from model_core.families.common.config import Attention, CheckpointConfig
from model_core.families.common.family import Kind
from model_core.families.common.solvers import SolvedBy, Solving, solving
from model_core.families.registry import FAMILIES, kinds

_MAX_STEPS = 100  # of a request
_MAX_GUIDANCE = 20.0  # beyond it, clips of any of these models are garish


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


def describe(choice: Choice, folders: tuple[str, ...] = FAMILIES) -> CheckpointConfig:
    """The configuration of what `choice` names, which is of one of the families in `folders`.

    Raises:
        WeightsError: the checkpoint is missing, incomplete, or of another family; its parts do not fit each other; it has a setting that is
            not served; or a size or length does not fit it. What only the weights themselves show is said when they are loaded.
    """
    checkpoint, known = choice.checkpoint, kinds(folders)
    index = checkpoint.index()
    family = _family(choice, index.get("_class_name"), known)
    general = known[family]
    components = _components(checkpoint, general, known)
    vae = component_settings(checkpoint, "vae", general.vae)
    transformer = component_settings(checkpoint, "transformer", general.transformer)
    check_patches(general.transformer, transformer, "transformer/config.json")
    kind, decoder = general.version(general, index, transformer), choice.decoder or "vae"
    factor, stretch = kind.vae.compression(vae)
    channels = int(vae[kind.vae.channels])
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
    settings = kind.streaming.read(index) if kind.streaming else {}
    grid = _grid(kind, settings, frames, stretch)
    if grid.max_frames not in (None, frames):
        raise WeightsError(f"frames must fill whole chunks for {family}: the next length is {grid.max_frames}; got {frames}")
    attention, window, decoder_window = Attention(), 0, 0
    if kind.streaming:
        decoder_window = -(-kind.streaming.reach(vae, decoder) // grid.rest)
        attention, window = kind.streaming.attention(settings, grid, decoder_window)
    _check_parts(checkpoint, kind, channels, stretch)
    components.setdefault(decoder, None)
    renamed = None if kind.renamed is None else kind.renamed(attention.averaged)
    check_weights(checkpoint, components, renamed=renamed, hints=[each.hint for each in known.values() if each.hint is not None])
    solver = _solver(checkpoint, family, kind.solved) if kind.solved else Solving()
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
        checkpoint=checkpoint, components=_named(components), chunk_grid=grid, channels=channels, factor=factor,
        window=window, decoder_window=decoder_window, attention=attention, decoder=decoder, guidance=guidance,
        max_guidance=1.0 if guidance == 1 else max(guidance, _MAX_GUIDANCE),  # it is turned off where a model was distilled to need none
        max_tokens=kind.max_tokens, negative_prompt=choice.negative_prompt, skip_threshold=choice.skip_threshold,
        told_rate=kind.told_rate, media=kind.media, needs_media=kind.needs_media, media_frames=kind.media_frames,
    )  # fmt: skip


def _named(components: dict[str, Network | None]) -> tuple[tuple[str, str], ...]:
    """With the classes of their networks; empty: there is none."""
    return tuple((component, network.name if network else "") for component, network in components.items())


def _components(checkpoint: Checkpoint, kind: Kind, known: dict[str, Kind]) -> dict[str, Network | None]:
    """Those that are used, with their networks."""
    needed: dict[str, Network | None] = {"tokenizer": None, "text_encoder": kind.text, "vae": kind.vae, "transformer": kind.transformer}
    needed |= {"scheduler": None} if kind.solved else {}
    rules = IndexRules(
        optional=(*kind.optional, *kind.unused), settings=kind.settings, flags=kind.flags,
        off={name for each in known.values() for name in each.off}, advice="".join(each.advice for each in known.values()),
    )  # fmt: skip
    check_index(checkpoint, dict(_named(needed)), rules)
    return needed | {name: network for name, network in kind.optional.items() if checkpoint.names(name)}


def _check_parts(checkpoint: Checkpoint, kind: Kind, channels: int, stretch: int) -> None:
    """Raises WeightsError: what the components say of themselves does not go together."""
    width = check_text_encoder(checkpoint, kind.text)
    kind.check(checkpoint)
    for name in ("transformer", "transformer_2"):
        if checkpoint.names(name):
            check_transformer(checkpoint, name, kind.transformer, width, (kind.seen(channels, stretch), channels))
            kind.check_transformer(checkpoint, name)


def _solver(checkpoint: Checkpoint, family: str, by: SolvedBy) -> Solving:
    settings, named = checkpoint.settings("scheduler"), checkpoint.index()["scheduler"][1]
    found = solving(family, by, settings)
    if named != found.name:  # diffusers goes by the index, and would solve with another class than its settings are made for
        raise WeightsError(f"model_index.json says that scheduler is a {named!r}; scheduler/scheduler_config.json says {found.name!r}")
    return found


def _fitting(most: int, apart: int, first: int) -> int:
    """The largest of `first`, `first + apart` and so on that is not above `most`."""
    return most - (most - first) % apart


def _family(choice: Choice, pipeline: object, known: dict[str, Kind]) -> str:
    fitting = [name for name, kind in known.items() if pipeline in kind.pipelines]
    if choice.family and choice.family not in known:
        raise WeightsError(f"family must be one of {', '.join(sorted(known))}; got {choice.family!r}")
    if choice.family and choice.family in fitting:
        return choice.family
    if choice.family or not fitting:
        wanted = choice.family or f"any of {', '.join(sorted(known))}"
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
    first, rest = kind.streaming.sizes(settings)
    if not frames:
        return ChunkGrid(first=first, rest=rest, factor=stretch, head=1)
    further, last = divmod(max(0, latents - first), rest)
    # A model whose chunks are all alike makes the whole last one, and a part of it is shown.
    return ChunkGrid(first=first, rest=rest, factor=stretch, head=1, chunks=1 + further + bool(last), last=last if first != rest else 0)

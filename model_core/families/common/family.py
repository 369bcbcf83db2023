"""What a model family is: one frozen description, which its own folder holds in `family.py`. Without torch.

A family's folder has `parts.py`, a module with the functions of `Parts`, and `tiny.py`, if it comes as checkpoints, with a function
`make(name, folder)` that writes a small one. Both are imported when they are first wanted: their libraries are heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from model_core.chunk_grid import ChunkGrid
from model_core.config import Media
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.networks import Network
from model_core.families.checkpoints.whole import Hint, Renamed
from model_core.families.common.config import Attention
from model_core.families.common.solvers import SolvedBy

if TYPE_CHECKING:
    from model_core.families.interface import Parts

Index = Mapping[str, Any]  # what `model_index.json` holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """How a model goes on chunk after chunk. `settings` are what `read` found.

    Attributes:
        read: settings in `model_index.json`; raises WeightsError.
        sizes: latent frames of the first chunk, and of each other.
        attention: what the denoiser sees, and chunks in the suffix, on a grid, with so many chunks that the decoder needs; raises
            WeightsError.
        reach: latent frames before the newest that the decoder needs: of the autoencoder's settings and the component that decodes.
    """

    read: Callable[[dict[str, Any]], dict[str, Any]]
    sizes: Callable[[dict[str, Any]], tuple[int, int]]
    attention: Callable[[dict[str, Any], ChunkGrid, int], tuple[Attention, int]]
    reach: Callable[[Mapping[str, Any], str], int]


def _nothing(*_: object) -> None:
    """Nothing further is checked."""


def _channels(channels: int, _: int) -> int:
    """The transformer sees latents and nothing else."""
    return channels


def _no_version(kind: Kind, _: Index, __: Mapping[str, Any]) -> Kind:
    """All versions have the same defaults."""
    return kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is true of every checkpoint of a family.

    Attributes:
        description: a line for ListModels.
        pipelines: classes that `model_index.json` may name.
        streaming: how it goes on without end; None: a clip of fixed length, made at once.
        fps, frames, steps, guidance: defaults. `frames` is the length of a clip, or of a streaming model's longest session; 0 for no end.
            If a checkpoint's autoencoder makes other lengths, the default is the next shorter one.
        height, width: defaults, rounded down to what the checkpoint can make.
        version: the defaults of a version that has its own, by `model_index.json` and the transformer's settings.
        max_tokens: of text.
        joined: how many latent frames after a clip's first one come only together.
        text, vae, transformer: its networks.
        media, needs_media: what a session may be given besides its prompt, and whether it must be given one of them.
        media_frames: of the longest video that it may be given.
        seen: channels that the transformer sees, of so many that latents have and so many frames that a latent frame makes.
        taehv: its latents are Wan's, which a TAEHV may decode.
        told_rate: the network is told of the rate of frames.
        solved: how its noise schedule is chosen; None: it has times of its own.
        optional: components that a checkpoint may have besides, and their networks, if they have any.
        unused: components that it may have, and that are never looked at.
        settings: keys of `model_index.json` that it reads besides components.
        flags: those of them that are true or false.
        off: those that change nothing in a checkpoint of another family where they are false.
        advice: what is said of a setting that no family knows.
        hint: what the name of a tensor says that a network does not have.
        renamed: reads the names of the transformer's tensors as its authors write them; of two generators, the averaged one or not.
        check: raises WeightsError: what the checkpoint says of itself does not go together.
        check_transformer: the same of one of its transformers, once its settings are known to be right.
    """

    description: str
    pipelines: tuple[str, ...]
    fps: int
    frames: int
    steps: int
    guidance: float
    max_tokens: int
    text: Network
    vae: Network
    transformer: Network
    height: int = 480
    width: int = 832
    version: Callable[[Kind, Index, Mapping[str, Any]], Kind] = _no_version
    joined: int = 1
    streaming: Streaming | None = None
    media: tuple[Media, ...] = ()
    needs_media: bool = False
    media_frames: int = 1
    seen: Callable[[int, int], int] = _channels
    taehv: bool = False
    told_rate: bool = False
    solved: SolvedBy | None = None
    optional: Mapping[str, Network | None] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    advice: str = ""
    hint: Hint | None = None
    renamed: Callable[[bool | None], Renamed] | None = None
    check: Callable[[Checkpoint], None] = _nothing
    check_transformer: Callable[[Checkpoint, str], None] = _nothing

    @property
    def networks(self) -> tuple[Network, ...]:
        """All that its checkpoints are made of."""
        return (self.text, self.vae, self.transformer, *(network for network in self.optional.values() if network is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A small checkpoint with random weights, of a family or of a version of it.

    Attributes:
        name: what `headrace models make-tiny` calls it.
        height, width: the smallest size that it makes, or near it.
        frames: of a short clip; of a model that streams, a session with all kinds of chunks; 0: it has no end.
    """

    name: str
    height: int = 32
    width: int = 48
    frames: int = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that are built and loaded alike.

    Attributes:
        name: what `ModelConfig.family` says.
        package: its folder, as Python imports it.
        kind: of its checkpoints; None: its models are presets.
        tiny: the small checkpoints that it makes.
    """

    name: str
    package: str
    kind: Kind | None = None
    tiny: tuple[Tiny, ...] = ()

    @property
    def parts(self) -> Parts:
        """What builds its stages."""
        return cast("Parts", import_module(f"{self.package}.parts"))

    def make_tiny(self, name: str, folder: Path) -> None:
        """Write the small checkpoint into `folder`, without checksums; draws its weights from torch's generator."""
        import_module(f"{self.package}.tiny").make(name, folder)

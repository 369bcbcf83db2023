"""Whether a checkpoint is whole, and its parts fit each other: all that can be said without torch, in the checkpoint's own terms.

What is left to the moment of loading is that every tensor has the place and the shape that the network wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.files import listed
from model_core.families.checkpoints.networks import Network, check_patches, settled
from model_core.families.checkpoints.shards import StoredTensor, weights_of
from model_core.families.checkpoints.vocabulary import check_vocabulary

_NO_NETWORK = ("scheduler", "tokenizer", "image_processor")
Hint = Callable[[str, str], str]  # a name of a tensor that the network lacks, and what names of its blocks begin with → what it says, or ""
Renamed = Callable[[Iterable[str]], dict[str, str]]  # names of tensors by their authors → by diffusers


def component_settings(checkpoint: Checkpoint, component: str, network: Network) -> dict[str, Any]:
    """The settings of a component that is a `network`, with what its file leaves out.

    Raises:
        WeightsError: it has none, is another network, or has a setting or a value that the network does not take.
    """
    settings, where = checkpoint.settings(component), f"{component}/config.json"
    if settings.get("_class_name", network.name) != network.name:
        authors = "; it has its authors' own names for settings" if "dim" in settings else ""
        raise WeightsError(f"{where} describes a {settings['_class_name']!r}{authors}; expected one of diffusers' {network.name}")
    if "dim" in settings:
        raise WeightsError(f"{where} has its authors' own names for settings (dim, num_heads); expected one of diffusers' {network.name}")
    return settled(network, settings, where)


def check_transformer(checkpoint: Checkpoint, component: str, network: Network, width: int, channels: tuple[int, int]) -> None:
    """Check that the transformer's settings are diffusers', and fit the autoencoder and the text encoder.

    Args:
        checkpoint: what is described.
        component: its name.
        network: what it is.
        width: of the text encoder's features.
        channels: that go in and out.

    Raises:
        WeightsError: they do not.
    """
    settings, where = component_settings(checkpoint, component, network), f"{component}/config.json"
    for name, why in network.unserved.items():
        if settings.get(name):
            raise WeightsError(f"{where} has {name} {settings[name]}: {why}")
    check_patches(network, settings, where)
    for name, must in (("in_channels", channels[0]), ("out_channels", channels[1])):
        if settings.get(name) is not None and settings[name] != must:
            raise WeightsError(f"{where} has {name} {settings[name]}; with this autoencoder it must be {must}")
    if settings[network.text_width] != width:
        raise WeightsError(f"{where} has {network.text_width} {settings[network.text_width]}; text_encoder/config.json has d_model {width}")


def check_text_encoder(checkpoint: Checkpoint, network: Network) -> int:
    """The width of its features.

    Raises:
        WeightsError: it is another network.
    """
    settings = checkpoint.settings("text_encoder")
    if settings.get("model_type") != network.model_type:
        raise WeightsError(
            f"text_encoder/config.json has model_type {settings.get('model_type')!r}, expected {network.model_type!r} for a {network.name}"
        )
    return int(settled(network, settings, "text_encoder/config.json")["d_model"])


def patches_of(transformer: Mapping[str, Any]) -> tuple[int, int]:
    """What a transformer's latents must be divisible by, along height and width."""
    sizes = [transformer.get("patch_size") or 1, transformer.get("compressed_patch_size") or 1]
    along = [size[-2:] if isinstance(size, list) else (size, size) for size in sizes]
    return math.lcm(*(int(rows) for rows, _ in along)), math.lcm(*(int(columns) for _, columns in along))


def check_weights(
    checkpoint: Checkpoint, components: Mapping[str, Network | None], *, renamed: Renamed | None = None, hints: Sequence[Hint] = ()
) -> None:
    """Check that the files of each component are there and whole, and hold tensors of its network, as far as headers and names say.

    Nothing of a repository is fetched for that: each stage checks its components when it has them.

    Args:
        checkpoint: what is described.
        components: networks by component; one without a network is only checked for being whole.
        renamed: of a transformer that may have its authors' names.
        hints: what names of tensors say that the network does not have.

    Raises:
        WeightsError: they do not.
    """
    if not checkpoint.here:
        return
    for component, network in components.items():
        folder = checkpoint.path() / component
        if not folder.is_dir():
            raise WeightsError(f"{folder} is missing: the checkpoint is incomplete or of another family")
        listed(checkpoint.path(), folder)
        if component == "tokenizer":
            if (text := components["text_encoder"]) is not None:
                check_vocabulary(folder, component_settings(checkpoint, "text_encoder", text)["vocab_size"])
        elif component in _NO_NETWORK:
            checkpoint.settings(component)
        else:
            _check_network(checkpoint, component, network, renamed if component == "transformer" else None, hints)


def _check_network(checkpoint: Checkpoint, component: str, network: Network | None, renamed: Renamed | None, hints: Sequence[Hint]) -> None:
    """See `check_weights`; `renamed`: its tensors may have their authors' names."""
    folder = checkpoint.path() / component
    weights = weights_of(folder)
    tensors = weights.tensors()
    if not weights.files:
        raise WeightsError(f"{folder} holds no safetensors, and nothing else is loaded")
    if network is None:
        return
    base = "model" if checkpoint.index().get(component, [""])[0] == "transformers" else "diffusion_pytorch_model"
    if renamed is None and (strange := [path.name for path in weights.files if not path.name.startswith(base)]):
        raise WeightsError(f"{folder / strange[0]} is not read: only {base}.safetensors is, or the files that its index names")
    named = tensors if renamed is None else {ours: tensors[theirs] for theirs, ours in renamed(tensors).items()}
    named = {name.removeprefix(network.earlier): held for name, held in named.items()}
    settings = component_settings(checkpoint, component, network)
    if network.parts:
        for problem in _problems(network, named, settings.get("num_layers", 0), hints):
            raise WeightsError(f"{folder} does not fit {network.name}: {problem}")
    _check_counts(folder, named, network.counts(settings))
    for name, shape in network.shapes(settings).items():
        if name in named and named[name].shape != shape:
            raise WeightsError(
                f"{folder} does not fit its config.json, whose settings make {name} of shape {list(shape)}; "
                f"it has shape {list(named[name].shape)}"
            )


def _check_counts(folder: Path, names: Iterable[str], counts: Mapping[str, tuple[int, str]]) -> None:
    """Raises WeightsError: there are more or fewer of a network's numbered parts than its settings say."""
    for prefix, (must, setting) in counts.items():
        found = len({name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)})
        if found != must:
            raise WeightsError(f"{folder} does not fit its config.json, whose {setting} makes {must} of {prefix}*; there are {found}")


def _problems(network: Network, tensors: Mapping[str, StoredTensor], count: int, hints: Sequence[Hint]) -> Iterator[str]:
    """What is wrong with names and shapes; `count` is how many blocks there are, if that is known."""
    words = {name.split(".")[0] for name in tensors}
    if strange := sorted(words - network.parts - network.optional):
        yield _told_of(sorted(name for name in tensors if name.split(".")[0] in strange), network.blocks, hints)
    if lacking := sorted(network.parts - words):
        yield f"missing: {lacking[0]}"
    if network.blocks:
        yield from _block_problems(network.blocks, tensors, count)


def _told_of(strange: Sequence[str], blocks: str, hints: Sequence[Hint]) -> str:
    """The network does not have these names. What they say about where the weights come from."""
    for name in strange:
        for hint in hints:
            if told := hint(name, blocks):
                return told
        before, found, _ = name.partition(f".{blocks}")
        if blocks and found:
            return f"unexpected: {name}; names that begin with {before}. are those of a repack for another program: remove that part"
    return f"unexpected: {strange[0]}, {len(strange)} in all"


def _block_problems(prefix: str, tensors: Mapping[str, StoredTensor], count: int) -> Iterator[str]:
    """Problems: there are not `count` blocks, if that is known, or they are not alike."""
    blocks: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, held in tensors.items():
        number, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and number.isdecimal():
            blocks.setdefault(int(number), {})[rest] = held.shape
    if count and sorted(blocks) != list(range(count)):
        yield f"its config.json says num_layers {count}; there are {len(blocks)} blocks, numbered to {max(blocks, default=-1)}"
    for rest in sorted({rest for block in blocks.values() for rest in block}):
        having = {number: block[rest] for number, block in sorted(blocks.items()) if rest in block}
        lacking = sorted(blocks.keys() - having.keys())
        # T5 keeps the positions that all blocks use in its first block.
        if lacking and not (list(having) == [0] and "relative_attention_bias" in rest):
            why, which, others = ("missing", lacking[0], "have") if len(having) >= len(lacking) else ("unexpected", min(having), "lack")
            yield f"{why}: {prefix}{which}.{rest}, which other blocks {others}"
        if odd := [(number, shape) for number, shape in having.items() if shape != having[min(having)]]:
            yield f"{prefix}{odd[0][0]}.{rest} has shape {list(odd[0][1])}; that of another block is {list(having[min(having)])}"

"""Whether a checkpoint is whole, and its parts fit each other: all that can be said without torch, in the checkpoint's own terms.

What is left to the moment of loading is that every tensor has the place and the shape that the network wants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import INDEX, Checkpoint
from model_core.families.checkpoints.files import listed
from model_core.families.checkpoints.networks import counts_of, shapes_of
from model_core.families.checkpoints.settings import settled
from model_core.families.checkpoints.shards import StoredTensor, weights_of
from model_core.families.checkpoints.vocabulary import check_vocabulary
from model_core.families.wan.names import GENERATORS, renamed, to_diffusers


@dataclass(frozen=True, slots=True)
class Network:
    """What the names of a network's tensors begin with.

    Attributes:
        parts: first words of names, each of which is there.
        optional: others that may be.
        blocks: what the names of its blocks begin with, before their numbers; empty: it has none.
    """

    parts: frozenset[str]
    optional: frozenset[str] = field(default_factory=frozenset)
    blocks: str = ""


def _network(parts: str, optional: str = "", blocks: str = "") -> Network:
    return Network(frozenset(parts.split()), frozenset(optional.split()), blocks)


_WAN = "patch_embedding condition_embedder blocks proj_out scale_shift_table"
NETWORKS = {
    "WanTransformer3DModel": _network(_WAN, blocks="blocks."),
    "AnyFlowFARTransformer3DModel": _network(f"{_WAN} far_patch_embedding", blocks="blocks."),
    "LTXVideoTransformer3DModel": _network(
        "proj_in scale_shift_table time_embed caption_projection transformer_blocks proj_out", blocks="transformer_blocks."
    ),
    "CogVideoXTransformer3DModel": _network(
        "patch_embed time_embedding transformer_blocks norm_final norm_out proj_out", "ofs_embedding", blocks="transformer_blocks."
    ),
    "AutoencoderKLWan": _network("encoder decoder quant_conv post_quant_conv"),
    "AutoencoderKLLTXVideo": _network("encoder decoder", "latents_mean latents_std"),
    "AutoencoderKLCogVideoX": _network("encoder decoder", "quant_conv post_quant_conv"),
    "UMT5EncoderModel": _network("encoder", "shared", blocks="encoder.block."),
    "T5EncoderModel": _network("encoder", "shared decoder", blocks="encoder.block."),
}
TEXT_ENCODERS = {"UMT5EncoderModel": "umt5", "T5EncoderModel": "t5"}  # and their `model_type`
_EARLIER = {"CLIPVisionModel": "vision_model."}  # before names, as transformers 4 writes them; 5 leaves it out, and reads both
_NO_NETWORK = ("scheduler", "tokenizer", "image_processor")
# Settings of a transformer's configuration that ask for something that no family here gives.
_UNSERVED = {
    "pos_embed_seq_len": "it is made for a first and a last frame, which are not served",
    "ofs_embed_dim": "it is made for a given image, which is not served",
    "use_learned_positional_embeddings": "it knows one size alone, and is made for a given image, which is not served",
}
_LTX_PATCHES = {"patch_size": (1,), "patch_size_t": (1,)}
_COGVIDEOX_PATCHES = {"patch_size_t": (None, 1, 2)}
_MORE_SETTINGS = {"boundary_ratio", "expand_timesteps"}  # of Wan's pipelines


def check_index(checkpoint: Checkpoint, needed: Mapping[str, str], optional: Sequence[str], settings: Sequence[str]) -> None:
    """Check that `model_index.json` names every component that is needed, and nothing that would be ignored.

    Args:
        checkpoint: what is described.
        needed: classes by component; empty for any.
        optional: components that it may name besides.
        settings: other keys that the family reads.

    Raises:
        WeightsError: it does not.
    """
    index = checkpoint.index()
    for component, kind in needed.items():
        if not checkpoint.names(component):
            raise WeightsError(f"{INDEX} of {checkpoint.folder} names no {component} (it says {index.get(component)!r}), and it is needed")
        if kind and index[component][1] not in (kind, None):
            raise WeightsError(f"{INDEX} of {checkpoint.folder} says that {component} is a {index[component][1]!r}; expected a {kind}")
    _check_values(index, (*needed, *optional), settings)
    for name, value in index.items():
        if name.startswith("_") or value is None or name in settings or name in needed or name in optional:
            continue
        if isinstance(value, list) and len(value) == 2:
            if checkpoint.names(name):
                raise WeightsError(f"{INDEX} of {checkpoint.folder} names {name}, a {value[1]!r}, for which the family has no use")
            continue
        if name in _MORE_SETTINGS and value is False:
            continue
        raise WeightsError(
            f"{INDEX} of {checkpoint.folder} has {name}, a setting that the family does not know: remove it if it changes nothing"
            " (settings of a causal Wan need `family: causal-wan`)"
        )


def _check_values(index: Mapping[str, Any], components: Sequence[str], settings: Sequence[str]) -> None:
    """Raises WeightsError: what `model_index.json` says of a component, or of how time is told, is none of what diffusers writes."""
    if "expand_timesteps" in settings and not isinstance(index.get("expand_timesteps"), bool | None):
        raise WeightsError(f"{INDEX}: expand_timesteps must be true or false; got {index['expand_timesteps']!r}")
    for name in components:
        if not _is_entry(index.get(name)):
            raise WeightsError(f"{INDEX}: {name} must be a library and a class, or null; got {str(index[name])[:64]!r}")


def _is_entry(value: object) -> bool:
    """Whether `model_index.json` may have it for a component."""
    return value is None or (isinstance(value, list) and len(value) == 2 and all(isinstance(part, str | None) for part in value))


def check_pair(checkpoint: Checkpoint) -> None:
    """Check that Wan 2.2's second transformer and the time at which it takes over are both there, or neither is.

    Raises:
        WeightsError: one is missing.
    """
    boundary, second = checkpoint.index().get("boundary_ratio"), checkpoint.names("transformer_2")
    if boundary is not None and not (isinstance(boundary, int | float) and 0 <= boundary <= 1):
        raise WeightsError(f"boundary_ratio in {INDEX} must be from 0 to 1; got {boundary!r}")
    if boundary is not None and not second:
        raise WeightsError(f"{INDEX} has boundary_ratio {boundary:g}, but names no transformer_2 to take over there: one of two is missing")
    if second and boundary is None:
        raise WeightsError(f"{INDEX} names transformer_2, but boundary_ratio does not say when it takes over; got null")


def component_settings(checkpoint: Checkpoint, component: str, kind: str) -> dict[str, Any]:
    """The settings of a component that is a `kind`, with what its file leaves out.

    Raises:
        WeightsError: it has none, is another network, or has a setting or a value that the network does not take.
    """
    settings, where = checkpoint.settings(component), f"{component}/config.json"
    if settings.get("_class_name", kind) != kind:
        authors = "; it has its authors' own names for settings" if "dim" in settings else ""
        raise WeightsError(f"{where} describes a {settings['_class_name']!r}{authors}; expected one of diffusers' {kind}")
    if "dim" in settings:
        raise WeightsError(f"{where} has its authors' own names for settings (dim, num_heads); expected one of diffusers' {kind}")
    return settled(kind, settings, where)


def check_transformer(checkpoint: Checkpoint, component: str, kind: str, width: int, channels: tuple[int, int]) -> None:
    """Check that the transformer's settings are diffusers', and fit the autoencoder and the text encoder.

    Args:
        checkpoint: what is described.
        component: its name.
        kind: its class.
        width: of the text encoder's features.
        channels: that go in and out.

    Raises:
        WeightsError: they do not.
    """
    settings, where = component_settings(checkpoint, component, kind), f"{component}/config.json"
    for name, why in _UNSERVED.items():
        if settings.get(name):
            raise WeightsError(f"{where} has {name} {settings[name]}: {why}")
    check_patches(settings, where)
    for name, must in (("in_channels", channels[0]), ("out_channels", channels[1])):
        if settings.get(name) is not None and settings[name] != must:
            raise WeightsError(f"{where} has {name} {settings[name]}; with this autoencoder it must be {must}")
    for name in ("text_dim", "caption_channels", "text_embed_dim"):
        if settings.get(name) is not None and settings[name] != width:
            raise WeightsError(f"{where} has {name} {settings[name]}; text_encoder/config.json has d_model {width}")


def check_patches(settings: Mapping[str, Any], where: str) -> None:
    """Raises WeightsError: latents would be cut into patches that no family here has."""
    for name in ("patch_size", "compressed_patch_size"):
        size = settings.get(name)
        if isinstance(size, list) and (len(size) != len("FHW") or size[0] != 1):
            raise WeightsError(f"{where}: {name} must be three numbers, of which the first is 1; got {size}")
    for name, served in (_LTX_PATCHES if "caption_channels" in settings else _COGVIDEOX_PATCHES).items():
        if name in settings and settings[name] not in served and not isinstance(settings[name], list):
            raise WeightsError(
                f"{where}: {name} must be {' or '.join('null' if each is None else str(each) for each in served)}; got {settings[name]}"
            )


def check_text_encoder(checkpoint: Checkpoint, kind: str) -> int:
    """The width of its features.

    Raises:
        WeightsError: it is another network.
    """
    settings = checkpoint.settings("text_encoder")
    if settings.get("model_type") != TEXT_ENCODERS[kind]:
        raise WeightsError(
            f"text_encoder/config.json has model_type {settings.get('model_type')!r}, expected {TEXT_ENCODERS[kind]!r} for a {kind}"
        )
    return int(settled(kind, settings, "text_encoder/config.json")["d_model"])


def patches_of(transformer: Mapping[str, Any]) -> tuple[int, int]:
    """What a transformer's latents must be divisible by, along height and width."""
    sizes = [transformer.get("patch_size") or 1, transformer.get("compressed_patch_size") or 1]
    along = [size[-2:] if isinstance(size, list) else (size, size) for size in sizes]
    return math.lcm(*(int(rows) for rows, _ in along)), math.lcm(*(int(columns) for _, columns in along))


def check_weights(checkpoint: Checkpoint, components: Mapping[str, str], *, causal: bool, averaged: bool | None = None) -> None:
    """Check that the files of each component are there and whole, and hold tensors of its network, as far as headers and names say.

    Nothing of a repository is fetched for that: each stage checks its components when it has them.

    Args:
        checkpoint: what is described.
        components: classes by component; a class that is not in `NETWORKS` is only checked for being whole.
        causal: the transformer may have its authors' names.
        averaged: see `model_core.families.wan.names.renamed`.

    Raises:
        WeightsError: they do not.
    """
    if not checkpoint.here:
        return
    for component, kind in components.items():
        folder = checkpoint.path() / component
        if not folder.is_dir():
            raise WeightsError(f"{folder} is missing: the checkpoint is incomplete or of another family")
        listed(checkpoint.path(), folder)
        if component == "tokenizer":
            check_vocabulary(folder, component_settings(checkpoint, "text_encoder", components["text_encoder"])["vocab_size"])
        elif component in _NO_NETWORK:
            checkpoint.settings(component)
        else:
            _check_network(checkpoint, component, kind, own=causal and component == "transformer", averaged=averaged)


def _check_network(checkpoint: Checkpoint, component: str, kind: str, *, own: bool, averaged: bool | None) -> None:
    """See `check_weights`; `own`: its tensors may have their authors' names."""
    folder = checkpoint.path() / component
    weights = weights_of(folder)
    tensors = weights.tensors()
    if not weights.files:
        raise WeightsError(f"{folder} holds no safetensors, and nothing else is loaded")
    base = "model" if checkpoint.index().get(component, [""])[0] == "transformers" else "diffusion_pytorch_model"
    if kind and not own and (strange := [path.name for path in weights.files if not path.name.startswith(base)]):
        raise WeightsError(f"{folder / strange[0]} is not read: only {base}.safetensors is, or the files that its index names")
    if kind:
        named = {ours: tensors[theirs] for theirs, ours in renamed(tensors, averaged=averaged).items()} if own else tensors
        named = {name.removeprefix(_EARLIER.get(kind, "")): held for name, held in named.items()}
        settings = component_settings(checkpoint, component, kind)
        if kind in NETWORKS:
            for problem in _problems(NETWORKS[kind], named, settings.get("num_layers", 0)):
                raise WeightsError(f"{folder} does not fit {kind}: {problem}")
        _check_counts(folder, named, counts_of(kind, settings))
        for name, shape in shapes_of(kind, settings).items():
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


def _problems(network: Network, tensors: Mapping[str, StoredTensor], count: int) -> Iterator[str]:
    """What is wrong with names and shapes; `count` is how many blocks there are, if that is known."""
    words = {name.split(".")[0] for name in tensors}
    if strange := sorted(words - network.parts - network.optional):
        yield _told_of(sorted(name for name in tensors if name.split(".")[0] in strange), network.blocks)
    if lacking := sorted(network.parts - words):
        yield f"missing: {lacking[0]}"
    if network.blocks:
        yield from _block_problems(network.blocks, tensors, count)


def _told_of(strange: Sequence[str], blocks: str) -> str:
    """The network does not have these names. What they say about where the weights come from."""
    for name in strange:
        if name.startswith(tuple(GENERATORS.values())):
            return f"unexpected: {name}, as Self-Forcing and its like name tensors: a causal Wan needs `family: causal-wan`"
        before, found, _ = name.partition(f".{blocks}")
        if blocks and found:
            return f"unexpected: {name}; names that begin with {before}. are those of a repack for another program: remove that part"
        if to_diffusers(name) != name:
            return f"unexpected: {name}, a name of Wan's authors; a causal Wan needs `family: causal-wan`, others diffusers' own layout"
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

"""What is known of a network without torch: its settings, as diffusers or transformers declare them, and the tensors that follow from them.

A setting that is not known is refused: both libraries pass over it, and then the model is not the one that was meant. A test compares each
`Network` with the library's own class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.settings import Settings, check_value, shown

Shape = tuple[int, ...]


def no_shapes(_: Mapping[str, Any]) -> dict[str, Shape]:
    """None is known."""
    return {}


def no_counts(_: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """None is known."""
    return {}


def words(names: str) -> frozenset[str]:
    """Those of a sentence: what the names of a network's tensors begin with."""
    return frozenset(names.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One class of diffusers or transformers.

    Attributes:
        name: of the class.
        settings: their names, what each must be, and what is taken where a file leaves it out.
        words: values of settings of which the library has no other, or passes over others.
        passed_over: what files have that earlier releases wrote, or that were made of another class's, with the only values that change
            nothing.
        open: other settings are taken as they are. transformers' classes have many, and most change nothing that an encoder does.
        unserved: settings that ask for something that no family here gives, and why.
        served: of settings, the only values that are served.
        model_type: of a text encoder.
        text_width: the setting of a transformer that says how wide text features are.
        channels: the setting of an autoencoder that says how many channels latents have.
        compression: of an autoencoder: pixels a latent position and frames a latent frame; raises WeightsError.
        parts: first words of names of tensors, each of which is there; empty: names are not checked.
        optional: others that may be.
        blocks: what the names of its blocks begin with, before their numbers; empty: it has none.
        earlier: before names, as transformers 4 writes them; 5 leaves it out, and reads both.
        shapes: of tensors that follow from settings, by name. They need not all be there: a tensor or two for each setting that makes
            shapes, since that all others fit too is found when the weights are loaded.
        counts: by what the names of numbered parts begin with: how many there are, and the setting that says it.
    """

    name: str
    settings: Settings
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    passed_over: Mapping[str, object] = field(default_factory=dict)
    open: bool = False
    unserved: Mapping[str, str] = field(default_factory=dict)
    served: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    model_type: str = ""
    text_width: str = ""
    channels: str = ""
    compression: Callable[[Mapping[str, Any]], tuple[int, int]] = lambda _: (1, 1)
    parts: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    blocks: str = ""
    earlier: str = ""
    shapes: Callable[[Mapping[str, Any]], dict[str, Shape]] = no_shapes
    counts: Callable[[Mapping[str, Any]], dict[str, tuple[int, str]]] = no_counts


def settled(network: Network, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given`, which is what the component's file holds, with what it leaves out. `where` is the file, for messages.

    Raises:
        WeightsError: a value is not what the class takes, or a setting is none of its.
    """
    known = network.settings
    for name, value in given.items():
        if name in known:
            check_value(where, name, value, known[name][0])
            if name in network.words and value not in network.words[name]:
                raise WeightsError(f"{where}: {name} must be {' or '.join(network.words[name])}; got {shown(value)}")
        elif not network.open and name[:1] != "_" and value not in (None, network.passed_over.get(name)):
            raise WeightsError(f"{where} has {name}, a setting that {network.name} does not know: remove it if it changes nothing")
    return {name: default for name, (_, default) in known.items()} | dict(given)


def check_patches(network: Network, settings: Mapping[str, Any], where: str) -> None:
    """Raises WeightsError: latents would be cut into patches that no family here has."""
    for name in ("patch_size", "compressed_patch_size"):
        size = settings.get(name)
        if isinstance(size, list) and (len(size) != len("FHW") or size[0] != 1):
            raise WeightsError(f"{where}: {name} must be three numbers, of which the first is 1; got {size}")
    for name, served in network.served.items():
        if name in settings and settings[name] not in served and not isinstance(settings[name], list):
            raise WeightsError(
                f"{where}: {name} must be {' or '.join('null' if each is None else str(each) for each in served)}; got {settings[name]}"
            )


def width_of(settings: Mapping[str, Any]) -> int:
    """Of a transformer."""
    return int(settings["num_attention_heads"] * settings["attention_head_dim"])

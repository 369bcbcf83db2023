"""What the settings of video autoencoders have in common, where they say how much smaller latents are than frames. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_core.errors import WeightsError

COLOURS = 3


def check_colours(vae: Mapping[str, Any]) -> None:
    """Raises WeightsError: it makes no frames of red, green and blue."""
    if vae["out_channels"] != COLOURS:
        raise wrong("out_channels", "3, for red, green and blue", vae)


def check_length(name: str, must: int, of: str, vae: Mapping[str, Any]) -> None:
    """Raises WeightsError: a list is too short; or too long, and its entries differ, so that nothing says which of them count."""
    entries = vae[name]
    if len(entries) < must or (len(entries) > must and any(entry != entries[0] for entry in entries)):
        raise wrong(name, f"a list of {must}, as {of} says", vae)


def check_words(name: str, words: Sequence[str], vae: Mapping[str, Any]) -> None:
    """Raises WeightsError: a list has an entry that is none of `words`."""
    if not set(vae[name]) <= set(words):
        raise wrong(name, f"a list, each {' or '.join(words)}", vae)


def wrong(name: str, must: str, vae: Mapping[str, Any]) -> WeightsError:
    """The setting `name` is not what it must be."""
    return WeightsError(f"vae/config.json: {name} must be {must}; got {vae[name]}")

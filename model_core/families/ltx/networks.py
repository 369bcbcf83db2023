"""How much smaller a video autoencoder's latents are than its frames, as its settings say. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from model_core.errors import WeightsError

_COLOURS = 3
_NEWER = "LTXVideo095DownBlock3D"
# Lists of an LTX-Video autoencoder, and how many entries they have beyond one a block.
_ENCODER = {"down_block_types": 0, "spatio_temporal_scaling": 0, "layers_per_block": 1}
_DECODER = {
    "decoder_spatio_temporal_scaling": 0, "decoder_layers_per_block": 1, "decoder_inject_noise": 1, "upsample_residual": 0,
    "upsample_factor": 0,
}  # fmt: skip


def compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels a latent position, and frames a latent frame. `vae` are the settings of `model_core.families.checkpoints.settings.settled`.

    Raises:
        WeightsError: settings contradict each other, or it makes no frames of red, green and blue.
    """
    if "z_dim" in vae:
        return _wan(vae)
    if vae["out_channels"] != _COLOURS:
        raise _wrong("out_channels", "3, for red, green and blue", vae)
    return _ltx(vae) if "spatio_temporal_scaling" in vae else _cogvideox(vae)


def _wan(vae: Mapping[str, Any]) -> tuple[int, int]:
    halvings, patch = vae["temperal_downsample"], vae["patch_size"] or 1
    made = {"scale_factor_spatial": 2 ** len(halvings) * patch, "scale_factor_temporal": 2 ** sum(halvings)}
    for name, value in made.items():
        if vae[name] not in (value, None):
            raise WeightsError(f"vae/config.json has {name} {vae[name]}; its temperal_downsample and patch_size make {value}")
    if len(vae["dim_mult"]) != len(halvings) + 1:
        raise _wrong("dim_mult", f"a list of {len(halvings) + 1} numbers, one more than temperal_downsample", vae)
    if vae["out_channels"] != (must := _COLOURS * patch**2):
        raise _wrong("out_channels", f"{must}, for red, green and blue", vae)
    for name in ("latents_mean", "latents_std"):
        if len(vae[name]) != vae["z_dim"]:
            raise WeightsError(f"vae/config.json: {name} must have {vae['z_dim']} numbers, as z_dim says; got {len(vae[name])}")
    return made["scale_factor_spatial"], made["scale_factor_temporal"]


def _ltx(vae: Mapping[str, Any]) -> tuple[int, int]:
    """What the encoder makes smaller the decoder makes as large again. Newer ones halve time or space alone, and say what comes of it."""
    newer = vae["down_block_types"][-1:] == [_NEWER]  # whose list of widths has one more, of what goes in
    _check_words("down_block_types", ("LTXVideoDownBlock3D", _NEWER), vae)
    _check_words("downsample_type", ("conv", "spatial", "temporal", "spatiotemporal"), vae)
    for of, blocks, lists in (
        ("block_out_channels", len(vae["block_out_channels"]) - newer, _ENCODER | ({"downsample_type": 0} if newer else {})),
        ("decoder_block_out_channels", len(vae["decoder_block_out_channels"]), _DECODER),
    ):
        if blocks < 1:
            raise _wrong(of, "a list of at least one number", vae)
        for name, more in lists.items():
            _check_length(name, blocks + more, of, vae)
    encoded, decoded = sum(vae["spatio_temporal_scaling"]), sum(vae["decoder_spatio_temporal_scaling"])
    found = []
    for name, patch in (("spatial_compression_ratio", vae["patch_size"]), ("temporal_compression_ratio", vae["patch_size_t"])):
        value = vae[name] or patch * 2**encoded
        if value != patch * 2**decoded:
            raise WeightsError(
                f"vae/config.json makes latents {value} times smaller ({name}), and frames {patch * 2**decoded} times larger"
            )
        found.append(value)
    return found[0], found[1]


def _cogvideox(vae: Mapping[str, Any]) -> tuple[int, int]:
    ratio = vae["temporal_compression_ratio"]
    if math.log2(ratio) % 1 or ratio < 1:
        raise _wrong("temporal_compression_ratio", "a power of 2", vae)
    widths, groups = vae["block_out_channels"], vae["norm_num_groups"]
    if not widths:
        raise _wrong("block_out_channels", "a list of at least one number", vae)
    for name, word in (("down_block_types", "CogVideoXDownBlock3D"), ("up_block_types", "CogVideoXUpBlock3D")):
        _check_words(name, (word,), vae)
        _check_length(name, len(widths), "block_out_channels", vae)
    if any(width % groups for width in widths):
        raise _wrong("norm_num_groups", f"a divisor of all block_out_channels, {widths}", vae)
    return 2 ** (len(vae["block_out_channels"]) - 1), int(ratio)


def _check_length(name: str, must: int, of: str, vae: Mapping[str, Any]) -> None:
    """Raises WeightsError: a list is too short; or too long, and its entries differ, so that nothing says which of them count."""
    entries = vae[name]
    if len(entries) < must or (len(entries) > must and any(entry != entries[0] for entry in entries)):
        raise _wrong(name, f"a list of {must}, as {of} says", vae)


def _check_words(name: str, words: Sequence[str], vae: Mapping[str, Any]) -> None:
    if not set(vae[name]) <= set(words):
        raise _wrong(name, f"a list, each {' or '.join(words)}", vae)


def _wrong(name: str, must: str, vae: Mapping[str, Any]) -> WeightsError:
    return WeightsError(f"vae/config.json: {name} must be {must}; got {vae[name]}")

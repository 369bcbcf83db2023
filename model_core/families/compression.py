"""How much smaller a video autoencoder's latents are than its frames, as its settings say. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model_core.errors import WeightsError

_COLOURS = 3


def compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels a latent position, and frames a latent frame. `vae` are the settings of `model_core.families.settings.settled`.

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
    if not vae["block_out_channels"]:
        raise _wrong("block_out_channels", "a list of at least one number", vae)
    return 2 ** (len(vae["block_out_channels"]) - 1), int(ratio)


def _wrong(name: str, must: str, vae: Mapping[str, Any]) -> WeightsError:
    return WeightsError(f"vae/config.json: {name} must be {must}; got {vae[name]}")

"""Settings of a causal Wan in `model_index.json`, by the names that its authors' configuration files have for them.

Each is honoured, or refused by its name. None is rounded or ignored: a model that runs with other settings than it was made for looks
like a bad model. Without torch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from model_core.chunk_grid import ChunkGrid
from model_core.errors import WeightsError
from model_core.families.common.config import Attention

# Of Self-Forcing, where a checkpoint does not say: latent frames of a block and those that attention spans, and the shift of its times.
BLOCK, _SEEN, _SHIFT = 3, 21, 5.0
NOISE = 1000  # the time at which a chunk is nothing but noise
_MOST = 1_000_000  # of any number: more is a mistake
_WHOLE = -1  # `local_attn_size` of a model that sees its whole session
HONOURED = (
    "num_frame_per_block", "local_attn_size", "sink_size", "timestep_shift", "denoising_step_list", "warp_denoising_step", "context_noise",
    "use_ema", "model_kwargs",
)  # fmt: skip
# Other settings that change what the model does, each with the only value that is served, and why.
_FIXED: dict[str, tuple[object, str]] = {
    "independent_first_frame": (False, "all chunks have one size"),
    "global_sink": (False, "a change of prompt makes the whole cache anew, the sink too"),
    "i2v": (False, "a session begins with its prompt alone"),
    "causal": (True, "chunks see what came before them"),
    "num_train_timestep": (NOISE, "times are in thousandths"),
    "text_len": (512, "prompts have 512 tokens"),
    "boundary_ratio": (None, "there is one transformer"),
    "expand_timesteps": (False, "a chunk has one time"),
}
KNOWN = (*HONOURED, *_FIXED)


def settings_of(index: dict[str, Any]) -> dict[str, Any]:
    """The settings in `index`, and in its `model_kwargs`, where the authors' files have some of them.

    Raises:
        WeightsError: one has two values, or one that is not served.
    """
    nested = index.get("model_kwargs") or {}
    if not isinstance(nested, dict):
        raise _wrong("model_kwargs", "be a map", nested)
    for name, value in nested.items():
        if name not in KNOWN:
            raise WeightsError(f"model_index.json has model_kwargs.{name}, which causal-wan does not know: remove it if it changes nothing")
        if index.get(name, value) != value:
            raise WeightsError(f"model_index.json has {name} twice: {index[name]!r}, and {value!r} in model_kwargs")
    found = {name: value for name, value in {**index, **nested}.items() if name in KNOWN and name != "model_kwargs" and value is not None}
    for name, (served, why) in _FIXED.items():
        if found.get(name, served) != served:
            raise _wrong(name, f"be {served!r} or left out, because {why}", found[name])
    return found


def block_of(settings: dict[str, Any]) -> int:
    """Latent frames of a chunk."""
    return _count(settings, "num_frame_per_block", BLOCK, least=1)


def attention_of(settings: dict[str, Any], grid: ChunkGrid, decoder_window: int) -> tuple[Attention, int]:
    """What the denoiser sees, and chunks in the suffix.

    A model of limited length sees all chunks unless it says otherwise. A commit sees the chunks before it, which saw the chunks before
    them, without end; so the cache of a model without end is renewed once as many chunks are done as the suffix, long enough for the
    decoder, allows.

    Raises:
        WeightsError: a setting cannot be served.
    """
    shift = _number(settings, "timestep_shift", _SHIFT)
    if shift <= 0:
        raise _wrong("timestep_shift", "be above 0", shift)
    noise = _number(settings, "context_noise", 0.0)
    if not 0 <= noise < NOISE:
        raise _wrong("context_noise", f"be at least 0 and below {NOISE}", noise)
    averaged = settings.get("use_ema")
    if averaged is not None and not isinstance(averaged, bool):
        raise _wrong("use_ema", "be true or false", averaged)
    steps = _steps(settings, shift)
    size = settings.get("local_attn_size")
    sink = _chunks(settings, "sink_size", 0, grid.rest)
    if size == _WHOLE and grid.chunks is None:
        raise WeightsError(
            "local_attn_size is -1 in model_index.json: the model sees its whole session, so frames must say how long; got 0, no end"
        )
    if size == _WHOLE or (size is None and grid.chunks is not None and not sink):
        return Attention(shift=shift, steps=steps, context_noise=noise, averaged=averaged), grid.chunks or 0
    if size is None and _SEEN % grid.rest:
        raise _wrong("local_attn_size", f"be given where num_frame_per_block is {grid.rest}, which does not divide {_SEEN}", size)
    window = _chunks(settings, "local_attn_size", _SEEN, grid.rest) - 1 - sink
    if window < 1:
        raise WeightsError(
            f"local_attn_size must leave room for a chunk of {grid.rest} latent frames, the one before it and the sink; got {size}"
        )
    suffix = max(2 * window, decoder_window)
    return Attention(
        window=window, sink=sink, renewal=suffix - window + 1, shift=shift, steps=steps, context_noise=noise, averaged=averaged
    ), suffix


def _steps(settings: dict[str, Any], shift: float) -> tuple[tuple[float, float], ...]:
    """See `Attention.steps`.

    With `warp_denoising_step` a listed number is a place in the table of the noise schedule, else a time, whose share of noise is that of
    the nearest time in the table.
    """
    warped, listed = settings.get("warp_denoising_step"), settings.get("denoising_step_list")
    if warped is not None and not isinstance(warped, bool):
        raise _wrong("warp_denoising_step", "be true or false", warped)
    if listed is None:
        if warped is False:
            raise _wrong("warp_denoising_step", "be true or left out where there is no denoising_step_list", warped)
        return ()
    if not isinstance(listed, list) or not all(isinstance(time, int) and not isinstance(time, bool) for time in listed):
        raise _wrong("denoising_step_list", "be a list of whole numbers", listed)
    times = listed[:-1] if listed[-1:] == [0] else listed  # CausVid lists the clean end, too
    if times[:1] != [NOISE] or any(later >= time or later < 1 for time, later in pairwise(times)):
        raise _wrong("denoising_step_list", f"fall from {NOISE} to at least 1, and may then end with 0", listed)
    if warped is None:
        raise _wrong("warp_denoising_step", "be true (as Self-Forcing has it) or false (CausVid) beside a denoising_step_list", warped)
    table = [_shifted(place / NOISE, shift) for place in range(NOISE, 0, -1)]
    if warped:
        return tuple((NOISE * _shifted(time / NOISE, shift), _shifted(time / NOISE, shift)) for time in times)
    return tuple((float(time), min((abs(NOISE * share - time), share) for share in table)[1]) for time in times)


def _shifted(time: float, shift: float) -> float:
    return shift * time / (1 + (shift - 1) * time)


def _chunks(settings: dict[str, Any], name: str, default: int, block: int) -> int:
    """A number of latent frames, as chunks."""
    frames = _count(settings, name, default, least=0)
    if frames % block:
        raise _wrong(name, f"be a multiple of {block}, the latent frames of a chunk", frames)
    return frames // block


def _count(settings: dict[str, Any], name: str, default: int, least: int) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(name, f"be a whole number of at least {least}", value)
    return value


def _number(settings: dict[str, Any], name: str, default: float) -> float:
    value = settings.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:  # noqa: PLR0124 - a NaN
        raise _wrong(name, "be a number", value)
    if abs(value) > _MOST:
        raise _wrong(name, f"be at most {_MOST}", value)
    return float(value)


def _wrong(name: str, must: str, got: object) -> WeightsError:
    return WeightsError(f"{name} in model_index.json must {must}; got {got!r}")

"""What sessions are tied to: the content that makes frames, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from model_core.chunk_grid import ChunkGrid
from model_core.config import Execution, MillraceConfig, ModelConfig, RuntimeConfig
from model_core.families.checkpoints.checkpoint import Checkpoint, write_checksums
from model_core.families.checkpoints.forms import in_halves, in_shards, linked
from model_core.families.common.config import Attention, CheckpointConfig
from model_core.families.common.solvers import Solving
from model_core.fingerprint import FINGERPRINT_VERSION, model_fingerprint
from model_core.presets import model_config
from tests import checkpoints

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
# Fields that no frame depends on, or only through others.
FREE = {
    "name", "description", "fps", "num_steps", "min_steps", "guidance", "max_guidance", "negative_prompt", "media", "needs_media",
    "media_frames", "solving", "frame_rate",
}  # fmt: skip
OTHER: dict[str, Any] = {
    "execution": Execution(decoder=RuntimeConfig(dtype="bfloat16")), "family_name": "wan-image",
    "chunk_grid": ChunkGrid(first=1, rest=1, factor=4, head=1),
    "attention": Attention(context_noise=1.0), "decoder": "taehv", "solving": Solving(name="x"), "media": ("image",),
    "components": (("vae", ""),),
}  # fmt: skip


def changed(config: ModelConfig, name: str) -> ModelConfig:
    held: Any = getattr(config, name)
    other = OTHER.get(name)
    if name in OTHER:
        pass
    elif isinstance(held, bool):
        other = not held
    elif isinstance(held, int | float | str):
        other = f"{held}1" if isinstance(held, str) else held * 2 + 1
    else:
        part = next(field.name for field in fields(held) if isinstance(getattr(held, field.name), int | str))
        other = replace(held, **{part: getattr(held, part) * 2})
    change: dict[str, Any] = {name: other}
    return replace(config, **change)


@pytest.mark.parametrize("config", [model_config(""), checkpoints.config("wan")], ids=["preset", "checkpoint"])
def test_each_field_is_in_it_or_changes_no_frame(config: ModelConfig) -> None:
    for field in fields(config):
        if field.name in {"checkpoint", "enhanced"}:
            continue  # its content counts, below; of a model as it is shown, nobody takes the fingerprint
        same = model_fingerprint(changed(config, field.name)) == model_fingerprint(config)
        assert same == (field.name in FREE), field.name
    assert isinstance(config, MillraceConfig | CheckpointConfig)


# Every field of the embedded model that is in it. One more field, or one less, ends every stored session at the next upgrade.
EMBEDDED = {
    "family", "height", "width", "max_steps", "grid.first", "grid.rest", "grid.last", "grid.factor", "grid.head", "grid.chunks",
    "latent_size", "context_chunks", "decoder_chunks", "sink_chunks", "shift", "text.package", "text.max_tokens", "text.width",
    "text.weights_sha256", "vae.latent_channels", "vae.spatial_factor", "vae.temporal_factor", "vae.encoder_width", "vae.decoder_width",
    "vae.decoder_blocks", "dit.latent_channels", "dit.latent_frames", "dit.latent_height", "dit.latent_width", "dit.patch", "dit.width",
    "dit.depth", "dit.heads", "dit.mlp_ratio", "dit.text_width", "dit.window", "weights.vae_sha256", "weights.dit_sha256",
    *(f"execution.{stage}.{name}" for stage in ("text_encoder", "denoiser", "decoder") for name in (
        "name", "dtype", "weights", "channels_last", "compiled", "target", "cores", "ranks",
    )),
}  # fmt: skip


def paths(identity: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in identity.items():
        if isinstance(value, dict):
            yield from paths(value, f"{before}{name}.")
        else:
            yield before + name


def test_the_embedded_model_keeps_its_fingerprint_until_its_version_is_raised() -> None:
    """Where this fails, either the change to the configuration belongs outside `identity`, or stored sessions end, which the log says."""
    config = model_config("")
    assert set(paths(config.identity())) == EMBEDDED
    assert FINGERPRINT_VERSION == 2
    assert model_fingerprint(config) == "9c03be4c175f2640e41da12cb5e793abef7fff274192710e54bbf84feed56255"


def test_a_checkpoint_names_every_field_of_its_attention() -> None:
    identity: Any = checkpoints.config("wan").identity()
    assert set(identity["attention"]) == {field.name for field in fields(Attention)}


def test_a_runtime_names_each_field_that_can_change_a_frame() -> None:
    runtime = RuntimeConfig()
    assert list(runtime.identity()) == [field.name for field in fields(runtime) if field.repr]
    assert runtime.identity() == {name: getattr(runtime, name) for name in runtime.identity()}


def test_a_rate_is_in_it_where_the_network_is_told_of_it() -> None:
    config = checkpoints.config("ltx")
    assert model_fingerprint(replace(config, frame_rate=24)) != model_fingerprint(config) == model_fingerprint(replace(config, fps=24))


def test_number_types_are_in_it() -> None:
    config = checkpoints.config("wan")
    assert model_fingerprint(replace(config, checkpoint=replace(config.checkpoint, dtype="float16"))) != model_fingerprint(config)


def rewritten(folder: Path) -> None:
    """The same tensors, in another order, with other notes in the header."""
    held = load_file(folder / TRANSFORMER)
    save_file(dict(reversed(held.items())), folder / TRANSFORMER, metadata={"by": "another program"})


def prose(folder: Path) -> None:
    for name in ("README.md", "transformer/README.md", ".cache/huggingface/download/x.metadata"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("2026-11-27")
    path = folder / "text_encoder/config.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({"_name_or_path": "x", **dict(reversed(held.items())), "transformers_version": "4.56.0"}, indent=7))


def touched(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))


SAME: list[Callable[[Path], object]] = [
    prose, touched, linked, rewritten, write_checksums, lambda folder: in_shards(folder, "transformer"),
    lambda folder: (folder / "tokenizer/spiece.model").write_bytes(b"not read beside tokenizer.json"),
]  # fmt: skip


@pytest.mark.parametrize("change", SAME)
def test_what_makes_the_same_frames_has_the_same(change: Callable[[Path], object], tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    change(folder)
    assert model_fingerprint(checkpoints.config("wan", folder)) == model_fingerprint(checkpoints.config("wan"))


def other_weights(folder: Path) -> None:
    """Of equal size, in a file of equal times."""
    path = folder / TRANSFORMER
    data, times = bytearray(path.read_bytes()), path.stat()
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def other_settings(folder: Path) -> None:
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"flow_shift": 4.0}))


def other_words(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    path.write_text(path.read_text().replace('"a":', '"\\u0100":', 1))


@pytest.mark.parametrize("change", [other_weights, other_settings, other_words, lambda folder: in_halves(folder, "vae")])
def test_what_makes_other_frames_has_another(change: Callable[[Path], object], tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    before = model_fingerprint(checkpoints.config("wan", folder))
    change(folder)
    assert model_fingerprint(checkpoints.config("wan", folder)) != before


def test_weights_that_are_pinned_are_not_read_for_it(tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    digest = write_checksums(folder)
    pinned = replace(checkpoints.config("wan", folder), checkpoint=Checkpoint(folder=str(folder), sha256=digest))
    before = model_fingerprint(pinned)
    shutil.rmtree(folder / "transformer")
    assert model_fingerprint(pinned) == before

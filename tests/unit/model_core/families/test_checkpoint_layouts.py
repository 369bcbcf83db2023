"""Folders that are no checkpoint, and files that are not what their names say: told as what they are, with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint, write_checksums
from model_core.families.checkpoints.forms import with_pieces
from tests import checkpoints

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5368709120\n"
REVISION = "models--owner--name/snapshots/0123"


def holding(*names: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("{}")
        return root

    return make


def named(name: str, of: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda root: of(root) / name


INSTEAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (holding(), "is empty, and has no model_index.json: download the checkpoint into it"),
    "a file": (named("wan.safetensors", holding("wan.safetensors")), r"wan.safetensors is a single file of weights .* and no folder; take"),
    "a GGUF file": (named("q.gguf", holding("q.gguf")), r"quantised weights of another program \(q.gguf\), which are not loaded .*; take"),
    "the index": (named("model_index.json", holding("model_index.json")), "model_index.json is a file: name its folder, "),
    "GGUF": (holding("README.md", "q4.gguf"), r"has no model_index.json, only the quantised weights of another program \(q4.gguf\)"),
    "weights": (holding("wan.safetensors"), r"only a single file of weights \(wan.safetensors\); take the checkpoint in diffusers' layout"),
    "LoRA": (holding("pytorch_lora_weights.safetensors"), r"an adapter \(a LoRA or the like: pytorch_lora.*\) .*: merge it into the model"),
    "PEFT": (holding("adapter_config.json", "adapter_model.safetensors"), "holds an adapter .* Adapters are not applied here: merge"),
    "cached model": (
        named("models--owner--name", holding(f"{REVISION}/model_index.json", "models--owner--name/refs/main")),
        "is a model's folder in the hub's cache: name its snapshot, .*/snapshots/0123$",
    ),
    "half cached": (
        named("models--owner--name", holding(f"{REVISION}/README.md", "models--owner--name/blobs/1")),
        "name its snapshot, which must hold model_index.json; none does, so download it again",
    ),
    "the cache": (holding(f"{REVISION}/model_index.json"), "is the hub's cache: name a snapshot in it, .*/snapshots/0123$"),
    "above": (holding("wan/model_index.json"), "has no model_index.json, a folder in it has: name .*/wan$"),
    "above many": (holding(*(f"{n}/model_index.json" for n in range(5))), "name .*/0 or .*/1 or .*/2 and 2 more$"),
    "below": (
        named("transformer", holding("model_index.json", "transformer/config.json")),
        "transformer is only the part transformer of a checkpoint: name the folder of all of it, ",
    ),
    "other": (holding("README.md", "a/b.txt"), "has no model_index.json; it holds README.md, a. Name the folder"),
}


@pytest.mark.parametrize("case", INSTEAD)
def test_what_is_there_instead_of_a_checkpoint_is_told_and_what_to_do(case: str, tmp_path: Path) -> None:
    make, sentence = INSTEAD[case]
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config("wan", make(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "SHA256SUMS",
    ],
)
def test_a_git_lfs_pointer_is_told_as_one(name: str, tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    (folder / name).write_text(POINTER)
    with pytest.raises(WeightsError, match=f"{name} is a Git LFS pointer to a file that was not fetched: run `git lfs pull`"):
        checkpoints.config("wan", folder)


def test_a_git_lfs_pointer_is_no_piece_model(tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    with_pieces(folder)
    (folder / "tokenizer/spiece.model").write_text(POINTER)
    with pytest.raises(WeightsError, match=r"spiece\.model is a Git LFS pointer"):
        checkpoints.config("wan", folder)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"tokenizer.json": '{"model": '}, "tokenizer.json is no tokenizer: EOF"),
        ({"tokenizer.json": '{"model": {"type": "Unigram", "vocab": [["<pad>", 0.0]]}}'}, "tokenizer.json is no tokenizer: .*unk"),
        ({"tokenizer_config.json": {"model_max_length": "x"}}, "model_max_length must be a number from 1 on, or null; got 'x'"),
        ({"tokenizer_config.json": {"model_max_length": True}}, "model_max_length must be a number from 1 on, or null; got 'True'"),
        ({"tokenizer_config.json": {"model_max_length": -1}}, "model_max_length must be a number from 1 on, or null; got '-1'"),
        ({"tokenizer_config.json": {"pad_token": "[PAD]"}}, r"has no token '\[PAD\]', which tokenizer_config.json says to fill with"),
        ({"tokenizer_config.json": {"pad_token": 0.5}}, "pad_token must be text, or an object with content; got '0.5'"),
        ({"tokenizer_config.json": {"pad_token": {"special": True}}}, "pad_token must be text, or an object with content"),
        ({"tokenizer_config.json": "[]"}, "tokenizer_config.json must hold a JSON object"),
    ],
)
def test_a_damaged_tokenizer_is_refused_before_a_replica_starts(files: dict[str, object], sentence: str, tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    for name, content in files.items():
        (folder / "tokenizer" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config("wan", folder)


@pytest.mark.parametrize("length", [10**30, 1e30, 512, None])
def test_a_length_that_means_no_limit_is_taken(length: float | None, tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
    assert checkpoints.config("wan", folder).family == "wan"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe\x00", "SHA256SUMS is no text in UTF-8, so it lists no checksums: write it again with `sha256sum`"),
        (b"hello\n", "SHA256SUMS, line 1: expected a SHA-256 of 64 digits, two spaces and a file's name; got 'hello'"),
        (b"0123  transformer/config.json\n", "SHA256SUMS, line 1: expected a SHA-256 of 64 digits"),
        (b"<!doctype html>\n<p>Not found\n", "SHA256SUMS, line 1: expected"),
        (f"{'0' * 64}  elsewhere\n".encode(), "tokenizer/tokenizer.json is not listed in SHA256SUMS"),
    ],
)
def test_a_damaged_list_of_checksums_is_refused_before_a_replica_starts(content: bytes, sentence: str, tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    (folder / CHECKSUMS).write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config("wan", folder)
    with pytest.raises(WeightsError, match="SHA256SUMS"):
        Checkpoint(folder=str(folder)).verified("tokenizer")


def test_a_list_of_checksums_is_read_as_sha256sum_and_find_write_it(tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    write_checksums(folder)
    lines = (folder / CHECKSUMS).read_text().splitlines()
    (folder / CHECKSUMS).write_text("\n".join(f"{line[:64].upper()} *./{line[66:]}" for line in lines) + "\n\n")
    assert checkpoints.config("wan", folder).family == "wan"
    Checkpoint(folder=str(folder)).verified("tokenizer")
    shutil.copy(folder / "model_index.json", folder / "tokenizer/tokenizer_config.json")
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json has sha256"):
        Checkpoint(folder=str(folder)).verified("tokenizer")

"""The safetensors files of one component: which of them are its weights, and what is in them.

Headers state every tensor's type, shape and place. So a cut file, a tensor that is there twice, or an index of other files is found
before anything is loaded. Knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.files import existing, read_json, stamp

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "BOOL": 1}
_MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as the format's own reader has it
_VARIANTS = ("fp16", "bf16", "fp32", "ema", "non_ema")  # that repositories offer beside the plain weights
_WEIGHTS = re.compile(rf"(?P<base>.+?)(?:\.(?P<variant>{'|'.join(_VARIANTS)}))?(?:-(?P<part>\d+)-of-(?P<parts>\d+))?\.safetensors")
_READERS, _PIECE_BYTES = 4, 1 << 22  # files that are read at once to be hashed, and how much of one
_INDEX = re.compile(rf"(?P<base>.+)\.safetensors\.index(?:\.(?P<variant>{'|'.join(_VARIANTS)}))?\.json")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a file, `size` bytes from `start` on."""

    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that hold a component's weights; none for one without weights, such as a tokenizer.

    Attributes:
        files: in the order of their names.
        variant: as in `model.fp16.safetensors`; empty for the plain weights.
    """

    files: tuple[Path, ...]
    variant: str = ""

    def tensors(self) -> dict[str, StoredTensor]:
        """By name.

        Raises:
            WeightsError: a file is damaged, holds a type that is not loaded, or a tensor that another file holds too.
        """
        found: dict[str, StoredTensor] = {}
        for path in self.files:
            for name, held in header(path).items():
                if name in found:
                    raise WeightsError(f"{found[name].path} and {path.name} both hold {name}, and nothing says which is meant")
                found[name] = held
        return found


def shards(folder: Path) -> list[Path]:
    """`weights_of`, its files."""
    return list(weights_of(folder).files)


def weights_of(folder: Path) -> Weights:
    """Plain weights where there are any, else those of the only variant.

    Raises:
        WeightsError: there are only pickles; a shard or its index is missing; an index is stale; or several variants are offered.
    """
    names = sorted(path.name for path in folder.iterdir())
    found = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
    pickles = [name for name in names if name.endswith(PICKLES)]
    if not found and pickles:
        raise WeightsError(f"{folder} has only pickled weights ({pickles[0]}), which can run code when loaded; convert them to safetensors")
    indices = {match["variant"] or "": match.string for name in names if (match := _INDEX.fullmatch(name))}
    variants = sorted({match["variant"] or "" for match in found} or indices)
    if len(variants) > 1 and variants[0]:
        raise WeightsError(f"{folder} offers {' and '.join(variants)} weights and no plain ones; keep one of them")
    if not variants:
        return Weights(())
    own = [match for match in found if (match["variant"] or "") == variants[0]]
    if variants[0] in indices:
        _check_index(folder, indices[variants[0]], [match.string for match in own])
    else:
        _check_parts(folder, own)
    return Weights(tuple(folder / match.string for match in own), variants[0])


def _check_index(folder: Path, index: str, files: Sequence[str]) -> None:
    """Check that the index names the files that are there, and says correctly what is in them."""
    listed: Any = read_json(folder / index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise WeightsError(f"{folder / index} has no weight_map from tensors to files, so it is no index")
    named = set(listed.values())
    if absent := sorted(named - set(files)):
        stale = f"; if {', '.join(files)} took its place, remove {index}" if files and not named & set(files) else ""
        raise WeightsError(f"{folder / absent[0]} is missing: {index} names it{stale}")
    if beside := sorted(set(files) - named):
        raise WeightsError(f"{folder / beside[0]} is not named by {index}: one of them is stale; remove it")
    held = Weights(tuple(folder / name for name in files)).tensors()
    if wrong := sorted(name for name in listed.keys() | held.keys() if name not in held or listed.get(name) != held[name].path.name):
        place = held[wrong[0]].path.name if wrong[0] in held else "no file"
        raise WeightsError(f"{folder / index} is stale: it says {wrong[0]} is in {listed.get(wrong[0], 'no file')}; it is in {place}")


def _check_parts(folder: Path, files: Sequence[re.Match[str]]) -> None:
    """Check that all parts of a split file are there, and an index, by which their readers find tensors."""
    if parts := [match for match in files if match["part"]]:
        there, of = {int(match["part"]) for match in parts}, int(parts[0]["parts"])
        lacking = sorted(set(range(1, of + 1)) - there)
        what = f"part {lacking[0]} of {of} is missing" if lacking else f"{parts[0]['base']}.safetensors.index.json is missing"
        raise WeightsError(f"{folder} has {parts[0].string}, but {what}")


def header(path: Path) -> dict[str, StoredTensor]:
    """The tensors that a safetensors file holds.

    Raises:
        WeightsError: it is none, is cut or padded, or holds a number type that is not loaded.
    """
    size = existing(path).stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MAX_HEADER_BYTES):
                raise ValueError(f"its header would be {length} bytes")
            entries = {name: entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}
        tensors = {name: _stored_tensor(entry, path, 8 + length) for name, entry in entries.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error
    if size != (end := max((held.start + held.size for held in tensors.values()), default=8 + length)):
        raise WeightsError(f"{path} is cut or padded: {size} bytes, its header says {end}")
    if strange := {held.dtype for held in tensors.values()} - _BYTES.keys():
        raise WeightsError(f"{path} holds {', '.join(sorted(strange))}; only {', '.join(DTYPES.values())} are loaded")
    for name, held in tensors.items():
        if held.size != (must := math.prod(held.shape) * _BYTES[held.dtype]):
            raise WeightsError(f"{path} holds {name} in {held.size} bytes; {held.dtype} of its shape takes {must}")
    return tensors


def _stored_tensor(entry: Any, path: Path, data: int) -> StoredTensor:
    start, end = (int(offset) for offset in entry["data_offsets"])
    return StoredTensor(str(entry["dtype"]), tuple(int(size) for size in entry["shape"]), path, data + start, end - start)


def contents(files: Sequence[Path]) -> list[str]:
    """A line for each tensor in `files`: name, type, shape and the SHA-256 of its bytes, sorted. How they fall into files does not matter.

    All bytes are read, several files at a time; a file that is as it was is read once a process.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return sorted(line for lines in pool.map(_lines, files) for line in lines)


def _lines(path: Path) -> tuple[str, ...]:
    return _lines_as_of(path, stamp(path))


@cache
def _lines_as_of(path: Path, _: tuple[int, ...]) -> tuple[str, ...]:
    lines, held_by = [], header(path)
    with path.open("rb") as file:
        for name, held in held_by.items():
            file.seek(held.start)
            hashed, left = hashlib.sha256(), held.size
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                hashed.update(piece)
                left -= len(piece)
            lines.append(f"{name} {held.dtype} {held.shape} {hashed.hexdigest()}")
    return tuple(lines)

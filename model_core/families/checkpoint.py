"""A checkpoint in a folder, as diffusers lays it out: `model_index.json`, and a folder for each component.

Everything that can be said of it without torch: which model it is, whether it is whole, and whether it is the one pinned. Only
safetensors are read. A pickle runs code when it is loaded, so a folder that offers nothing else is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError

INDEX = "model_index.json"
CHECKSUMS = "SHA256SUMS"  # as `sha256sum` writes it; `sha256sum -c SHA256SUMS` checks the same
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt")  # of a component; no pickles
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as the format's own reader has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where weights are, and which they must be.

    Attributes:
        folder: a local folder, or the id of a repository on the hub, `owner/name`.
        revision: for a repository: the full commit. Names of branches move, so they are refused.
        sha256: of the folder's `SHA256SUMS`; empty if nothing is pinned. Files that it lists are checked when they are loaded.
        dtype: of the loaded weights.
    """

    folder: str
    revision: str = ""
    sha256: str = ""
    dtype: str = "float32"

    def path(self, *files: str) -> Path:
        """The local folder. Of a repository, its description and `files`, which are patterns, are fetched if the hub's cache lacks them.

        Raises:
            WeightsError: it is not there, not pinned, or not the one pinned.
        """
        if self.dtype not in DTYPES:
            raise WeightsError(f"dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            folder = self._fetched(folder, files)
        if self.sha256 and (digest := _digest(_existing(folder / CHECKSUMS))) != self.sha256:
            raise WeightsError(f"{folder / CHECKSUMS} has sha256 {digest}, pinned is {self.sha256}")
        return folder

    def index(self) -> dict[str, Any]:
        """`model_index.json`."""
        return read_json(self.path() / INDEX)

    def settings(self, component: str) -> dict[str, Any]:
        """The component's configuration."""
        folder = self.path(f"{component}/*.json") / component
        for name in ("config.json", "scheduler_config.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                return read_json(folder / name)
        raise WeightsError(f"{folder} has no config.json: the checkpoint is incomplete or of another family")

    def verified(self, component: str) -> Path:
        """The component's folder, after everything that can be said of its files without loading them.

        Raises:
            WeightsError: only pickles, a missing or cut shard, a number type that is not loaded, or a file that differs from its checksum.
        """
        root = self.path(*(f"{component}/{pattern}" for pattern in _FETCHED))
        folder = root / component
        if not folder.is_dir():
            raise WeightsError(f"{folder} is missing: the checkpoint is incomplete or of another family")
        for shard in shards(folder):
            _check_header(shard)
        sums = _checksums(root)
        for name in sorted(str(path.relative_to(root)) for path in folder.rglob("*") if path.is_file()):
            if sums and name not in sums:
                raise WeightsError(f"{root / name} is not listed in {CHECKSUMS}")
            if sums and (digest := _digest(root / name)) != sums[name]:
                raise WeightsError(f"{root / name} has sha256 {digest}, {CHECKSUMS} says {sums[name]}")
        return folder

    def identity(self) -> str:
        """Changes when the weights do: by their checksums where there are any, else by the commit, else by names and sizes of the files."""
        root = self.path()
        if (root / CHECKSUMS).is_file():
            return _digest(root / CHECKSUMS)
        if root != Path(self.folder).expanduser():
            return hashlib.sha256(f"{self.folder} {self.revision}".encode()).hexdigest()
        listed = [f"{path.relative_to(root)} {path.stat().st_size}" for path in sorted(root.rglob("*")) if path.is_file()]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def _fetched(self, folder: Path, files: tuple[str, ...]) -> Path:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.folder):
            raise WeightsError(f"{folder} is no folder")
        if not _COMMIT.fullmatch(self.revision):
            raise WeightsError(f"{self.folder}: pin `revision` to a full commit of 40 hexadecimal digits; got {self.revision!r}")
        return _downloaded(self.folder, self.revision, (INDEX, CHECKSUMS, *files))


@cache
def _downloaded(repository: str, revision: str, files: tuple[str, ...]) -> Path:
    """The snapshot in the hub's cache, asked for once a process.

    Nothing but `files`: repositories also hold pickles, and single files of many gigabytes for other programs.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only a repository needs it

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the hub's client raises errors of many kinds
        raise WeightsError(f"cannot fetch {repository} at {revision}: {type(error).__name__}: {error}") from error


def shards(folder: Path) -> list[Path]:
    """The safetensors files of one component; none for one without weights, such as a tokenizer.

    Raises:
        WeightsError: there are only pickles, or a shard is missing.
    """
    found = sorted(folder.glob("*.safetensors"))
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not found and pickles:
        raise WeightsError(f"{folder} has only pickled weights ({pickles[0]}), which can run code when loaded; convert them to safetensors")
    for index in folder.glob("*.safetensors.index.json"):
        for name in sorted(set(read_json(index)["weight_map"].values())):
            if not (folder / name).is_file():
                raise WeightsError(f"{folder / name} is missing: {index.name} names it")
    return found


def write_checksums(root: Path) -> str:
    """Write `SHA256SUMS` for every file under `root`; returns the digest to pin."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    text = "".join(f"{_digest(path)}  {path.relative_to(root)}\n" for path in files)
    (root / CHECKSUMS).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Raises WeightsError: it is missing, or no JSON object."""
    try:
        value = json.loads(_existing(path).read_text())
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must hold a JSON object")
    return value


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(f"{path} is missing")
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksums(root: Path) -> dict[str, str]:
    if not (root / CHECKSUMS).is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in (root / CHECKSUMS).read_text().splitlines() if line)
    return {name.lstrip("*"): digest for digest, name in lines}


def _check_header(path: Path) -> None:
    """The header states every tensor's type and place, so a wrong type or a cut file shows before anything is loaded."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MAX_HEADER_BYTES):
                raise ValueError(f"its header would be {length} bytes")
            tensors = {name: entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        kinds = {entry["dtype"] for entry in tensors.values()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error
    if size != 8 + length + end:
        raise WeightsError(f"{path} is cut or padded: {size} bytes, its header says {8 + length + end}")
    if strange := kinds - {*DTYPES.values(), "I64", "I32", "BOOL"}:
        raise WeightsError(f"{path} holds {', '.join(sorted(strange))}; what is loaded are {', '.join(DTYPES.values())}")

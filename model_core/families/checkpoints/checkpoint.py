"""A checkpoint in a folder, as diffusers lays it out: `model_index.json`, and a folder for each component.

Everything that can be said of it without torch: which model it is, whether it is whole, and whether it is the one pinned. Only
safetensors are read. A pickle runs code when it is loaded, so a folder that offers nothing else is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.files import CHECKSUMS, digest, listed, read_json, write_checksums
from model_core.families.checkpoints.layout import DIFFUSERS, INDEX, file_instead, folder_instead
from model_core.families.checkpoints.shards import DTYPES, contents, shards, weights_of
from model_core.families.checkpoints.vocabulary import TOKENS

__all__ = ["CHECKSUMS", "DTYPES", "INDEX", "Checkpoint", "read_json", "shards", "write_checksums"]

SETTINGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")  # of a component, whichever it has
_FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt")  # of a component; no pickles
_DESCRIBED = ("*/config.json", "*/*_config.json")  # of a repository, to know what the model is
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOTES = ("transformers_version", "torch_dtype", "dtype")  # in a component's settings: what wrote it, not what it computes


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
        if self.sha256 and (found := digest(folder / CHECKSUMS)) != self.sha256:
            raise WeightsError(f"{folder / CHECKSUMS} has sha256 {found}, pinned is {self.sha256}")
        return folder

    @property
    def here(self) -> bool:
        """Whether all of its files are on this machine: it is a folder. Of a repository, each stage fetches what it needs."""
        return Path(self.folder).expanduser().is_dir()

    def index(self) -> dict[str, Any]:
        """`model_index.json`.

        Raises:
            WeightsError: it is missing, or no JSON object.
        """
        root = self.path(*_DESCRIBED)
        if not os.path.lexists(root / INDEX):
            raise WeightsError(folder_instead(root) if self.here else f"{self.folder} at {self.revision} has no {INDEX}: {DIFFUSERS}")
        return read_json(root / INDEX)

    def names(self, component: str) -> bool:
        """Whether `model_index.json` names the component; one without a class, `null` or `[null, null]`, is not there."""
        entry = self.index().get(component)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def settings(self, component: str) -> dict[str, Any]:
        """The component's configuration.

        Raises:
            WeightsError: it has none.
        """
        folder = self.path(*_DESCRIBED) / component
        for name in SETTINGS:
            if (folder / name).is_file():
                return read_json(folder / name)
        what = "has no config.json" if folder.is_dir() else "is missing"
        raise WeightsError(f"{folder} {what}: the checkpoint is incomplete or of another family")

    def verified(self, component: str) -> Path:
        """The component's folder, after everything that can be said of its files without loading them.

        Raises:
            WeightsError: only pickles, a missing or cut shard, a number type that is not loaded, or a file that differs from its checksum.
        """
        root = self.path(*(f"{component}/{pattern}" for pattern in _FETCHED))
        folder = root / component
        if not folder.is_dir():
            raise WeightsError(f"{folder} is missing: the checkpoint is incomplete or of another family")
        weights_of(folder).tensors()
        for name, must in listed(root, folder).items():
            if (found := digest(root / name)) != must:
                raise WeightsError(f"{root / name} has sha256 {found}, {CHECKSUMS} says {must}")
        return folder

    def identity(self, components: Iterable[str]) -> str:
        """Changes with what `components` hold, and with nothing else: names, times and further files do not matter.

        What is pinned says by itself what it holds: a repository at a commit, a folder by `sha256`. Otherwise all weights are read, once a
        process; so this is not for an event loop.

        Raises:
            WeightsError: a component is missing or damaged.
        """
        if self.sha256 or not self.here:
            return hashlib.sha256(f"{self.sha256 or f'{self.folder} {self.revision}'}".encode()).hexdigest()
        lines = [line for component in components for line in (component, *_content(self.path() / component))]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _fetched(self, folder: Path, files: tuple[str, ...]) -> Path:
        if folder.is_file():
            raise WeightsError(file_instead(folder))
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


def _content(folder: Path) -> list[str]:
    """What a component computes, a line for each of its settings, its vocabulary and its tensors."""
    lines = []
    for name in SETTINGS:
        if (folder / name).is_file():
            settings = {key: value for key, value in read_json(folder / name).items() if key[:1] != "_" and key not in _NOTES}
            lines.append(json.dumps(settings, sort_keys=True))
    tokens = [digest(folder / name) for name in TOKENS if (folder / name).is_file()]
    return [*lines, *tokens[:1], *contents(shards(folder))]

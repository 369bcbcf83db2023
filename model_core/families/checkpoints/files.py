"""Files of a checkpoint: JSON, digests, and the list of checksums. A Git LFS pointer is none of them, and is told by its first words."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError

CHECKSUMS = "SHA256SUMS"  # as `sha256sum` writes it; `sha256sum -c SHA256SUMS` checks the same
_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> dict[str, Any]:
    """Raises WeightsError: it is missing, or no JSON object in UTF-8."""
    try:
        value = json.loads(existing(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must hold a JSON object")
    return value


def existing(path: Path) -> Path:
    """Raises WeightsError: it is no file that can be opened, or only stands for one."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
    except FileNotFoundError as error:
        raise WeightsError(f"{path} {'is a link to nothing' if path.is_symlink() else 'is missing'}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if pointer:
        raise WeightsError(f"{path} is a Git LFS pointer to a file that was not fetched: run `git lfs pull` there, or download it again")
    return path


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes."""
    with existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> tuple[int, ...]:
    """Differs whenever the file may have other bytes. Only the system sets the time of change, whatever the other times say."""
    now = existing(path).stat()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def checksums(root: Path) -> dict[str, str]:
    """Digests by file name, as `SHA256SUMS` in `root` lists them; none where there is no such file.

    Raises:
        WeightsError: it is no text, or has a line that `sha256sum` does not write.
    """
    path = root / CHECKSUMS
    found: dict[str, str] = {}
    if not path.is_file():
        return found
    try:
        lines = existing(path).read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise WeightsError(f"{path} is no text in UTF-8, so it lists no checksums: write it again with `sha256sum`") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and (match := _SUM.fullmatch(line)) is None:
            raise WeightsError(f"{path}, line {number}: expected a SHA-256 of 64 digits, two spaces and a file's name; got {line[:80]!r}")
        if line.strip() and match:
            found[match[2]] = match[1].lower()
    return found


def listed(root: Path, folder: Path) -> dict[str, str]:
    """Digests that `SHA256SUMS` in `root` gives for the files in `folder`, which is a part of `root`; none where there is no such file.

    Raises:
        WeightsError: see `checksums`; or one of the files is not listed.
    """
    if not (sums := checksums(root)):
        return {}
    names = sorted(path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        if name not in sums:
            raise WeightsError(f"{root / name} is not listed in {CHECKSUMS}")
    return {name: sums[name] for name in names}


def write_checksums(root: Path) -> str:
    """Write `SHA256SUMS` for every file under `root` that is not hidden; returns the digest to pin."""
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    text = "".join(f"{digest(root / name)}  {name}\n" for name in files if not any(part.startswith(".") for part in name.parts))
    (root / CHECKSUMS).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()

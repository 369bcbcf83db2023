"""Files of a checkpoint: JSON, digests, and the list of checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from model_core.errors import WeightsError

CHECKSUMS = "SHA256SUMS"  # as `sha256sum` writes it; `sha256sum -c SHA256SUMS` checks the same


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
    """Raises WeightsError: it is no file that can be opened."""
    try:
        with path.open("rb"):
            return path
    except FileNotFoundError as error:
        raise WeightsError(f"{path} {'is a link to nothing' if path.is_symlink() else 'is missing'}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes."""
    with existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> tuple[int, ...]:
    """Differs whenever the file may have other bytes. Only the system sets the time of change, whatever the other times say."""
    now = existing(path).stat()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def checksums(root: Path) -> dict[str, str]:
    """Digests by file name, as `SHA256SUMS` in `root` lists them; none where there is no such file."""
    if not (root / CHECKSUMS).is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in (root / CHECKSUMS).read_text(encoding="utf-8").splitlines() if line)
    return {name.removeprefix("*"): listed for listed, name in lines}


def write_checksums(root: Path) -> str:
    """Write `SHA256SUMS` for every file under `root` that is not hidden; returns the digest to pin."""
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    text = "".join(f"{digest(root / name)}  {name}\n" for name in files if not any(part.startswith(".") for part in name.parts))
    (root / CHECKSUMS).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()

"""The files of the page, read once: a name, its bytes, its type and its digest. Knows no HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
INDEX = "index.html"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One of them. `etag` as a header has it, in quotes."""

    data: bytes
    media_type: str
    etag: str


def page_files(folder: Path = FOLDER) -> Mapping[str, PageFile]:
    """All files below `folder`, by their paths with slashes. They are few and small, and a request looks at no path of its own.

    Raises:
        ValueError: one is of a kind that the page does not use.
    """
    found: dict[str, PageFile] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix not in _TYPES:
            raise ValueError(f"files of the page must end in {', '.join(_TYPES)}; got {path.name}")
        data = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = PageFile(data, _TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found

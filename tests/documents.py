"""The code blocks of the documents, and what each says of its test.

A block of commands, of Python or of settings has a marker on the lines before its fence:

    <!-- tested: tests/FILE.py::TEST -->          this test runs the block, or the same commands
    <!-- untested: why no test runs it -->
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What somebody would copy and run; other blocks show something.
RUNNABLE = {"sh", "python", "yaml"}

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<kind>tested|untested): (?P<of>(?:(?!-->).)+?) -->\n)?"
    r"^(?P<pad>[ ]*)```(?P<language>\w*)\n(?P<text>.*?)^(?P=pad)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """`kind` is "tested", "untested" or, without a marker, empty; `of` is the rest of the marker in one line."""

    document: str
    line: int
    language: str
    text: str
    kind: str
    of: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Every fenced block, from top to bottom."""
    source = document.read_text(encoding="utf-8")
    return [
        Block(
            document.relative_to(ROOT).as_posix(), source[: found.start()].count("\n") + 1, found["language"],
            textwrap.dedent(found["text"]), found["kind"] or "", " ".join((found["of"] or "").split()),
        )
        for found in _BLOCK.finditer(source)
    ]  # fmt: skip


def named_by(test: str, documents: list[Path]) -> list[Block]:
    """The blocks whose marker names `test`."""
    return [block for document in documents for block in blocks(document) if block.kind == "tested" and block.of == test]

"""A terminal from top to bottom: the picture, a status line, lines that scroll, the line that is being typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from model_core.media import Frames

_SAVE, _RESTORE, _CLEAR_LINE = "\x1b7", "\x1b8", "\x1b[2K"
_LOWER_ROWS = 7  # lines that scroll, and the one that is typed


class Screen(Protocol):
    """What a live session shows."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def say(self, text: str) -> None: ...
    def status(self, text: str) -> None: ...
    def picture(self, frame: Frames) -> None: ...
    def typing(self, text: str) -> None: ...


class PlainScreen:
    """One line after the other, for logs and pipes; no pictures."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def say(self, text: str) -> None:
        self._write(text + "\n")

    def status(self, text: str) -> None:
        self._write(text + "\n")

    def picture(self, frame: Frames) -> None:
        return

    def typing(self, text: str) -> None:
        return


class TerminalScreen:
    """Draws with half blocks, two pixel rows a text row, thinned until the picture fits. A small terminal gets no picture.

    Uses the scroll region of the VT100. The cursor rests in the last row, behind what is being typed.
    """

    def __init__(self, write: Callable[[str], None], columns: int, rows: int) -> None:
        self._write = write
        self._columns = columns
        self._rows = rows
        self._picture_rows = max(0, rows - _LOWER_ROWS - 1)
        if self._picture_rows < 8:
            self._picture_rows = 0

    def __enter__(self) -> Self:
        self._write(f"\x1b[2J\x1b[{self._picture_rows + 2};{self._rows - 1}r")
        self.typing("")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._write(f"\x1b[0m\x1b[r\x1b[{self._rows};1H{_CLEAR_LINE}")

    def say(self, text: str) -> None:
        # A line break in the region's last row moves the lines above it up.
        self._write(f"{_SAVE}\x1b[{self._rows - 1};1H\n{text[: self._columns - 1]}{_RESTORE}")

    def status(self, text: str) -> None:
        self._write(f"{_SAVE}\x1b[{self._picture_rows + 1};1H{_CLEAR_LINE}\x1b[7m{text[: self._columns - 1]}\x1b[0m{_RESTORE}")

    def typing(self, text: str) -> None:
        self._write(f"\x1b[{self._rows};1H{_CLEAR_LINE}> {text[-(self._columns - 4) :]}")

    def picture(self, frame: Frames) -> None:
        """Draw `frame` `[H, W, 3]`."""
        if not self._picture_rows:
            return
        height, width = frame.shape[:2]
        step = max(1, -(-height // (2 * self._picture_rows)), -(-width // self._columns))
        thin = frame[::step, ::step]
        out = [_SAVE]
        for row in range(len(thin) // 2):
            out.append(f"\x1b[{row + 1};1H")
            for (r1, g1, b1), (r2, g2, b2) in zip(thin[2 * row].tolist(), thin[2 * row + 1].tolist(), strict=True):
                out.append(f"\x1b[38;2;{r1};{g1};{b1};48;2;{r2};{g2};{b2}m▀")
            out.append("\x1b[0m")
        out.append(_RESTORE)
        self._write("".join(out))


def screen(write: Callable[[str], None], *, terminal: bool) -> Screen:
    if not terminal:
        return PlainScreen(write)
    size = shutil.get_terminal_size()
    return TerminalScreen(write, size.columns, size.lines)

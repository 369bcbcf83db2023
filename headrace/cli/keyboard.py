"""Lines typed while something plays, without a thread that blocks the exit, and without the terminal's echo in the picture."""

from __future__ import annotations

import asyncio
import codecs
import os
import termios
import threading
import tty
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext

_READ_BYTES = 4096
_QUEUED_READS = 16
_LONGEST_LINE = 1 << 20
_END_OF_INPUT, _ESCAPE = "\x04", "\x1b"
_BACKSPACE = ("\x08", "\x7f")
_CLEAR = "\x15"


class LineEditor:
    """Bytes in, finished lines out. `interactive` understands backspace, Ctrl-U and Ctrl-D, and ignores other control keys."""

    def __init__(self, *, interactive: bool) -> None:
        self._interactive = interactive
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""
        self.text = ""
        self.ended = False

    def feed(self, data: bytes) -> list[str]:
        """Lines that `data` finishes, without their line breaks. `text` is then what stands in the unfinished one."""
        lines: list[str] = []
        for key in self._decoder.decode(data):
            if self._in_escape(key):
                continue
            if key == "\n" or (self._interactive and key == "\r"):
                lines.append(self.text)
                self.text = ""
            elif not self._interactive:
                self.text += key
            elif key in _BACKSPACE:
                self.text = self.text[:-1]
            elif key == _CLEAR:
                self.text = ""
            elif key == _END_OF_INPUT and not self.text:
                self.ended = True
                break
            elif key.isprintable():
                self.text += key
        if len(self.text) > _LONGEST_LINE:
            self.ended = True
        return lines

    def _in_escape(self, key: str) -> bool:
        """Whether `key` belongs to a sequence such as an arrow key sends: ESC, [ or O, parameters, one letter or tilde."""
        if not self._interactive:
            return False
        if self._escape:
            first = self._escape == _ESCAPE
            self._escape = self._escape + key if (first and key in "[O") or (not first and not "@" <= key <= "~") else ""
            return True
        self._escape = _ESCAPE if key == _ESCAPE else ""
        return bool(self._escape)


async def lines(descriptor: int, typing: Callable[[str], None] | None = None) -> AsyncGenerator[str, None]:
    """Lines read from a file descriptor until its end, without their line breaks. Works for terminals, pipes and files.

    Args:
        descriptor: read in a daemon thread, below Python's own buffering: a buffered reader would hold its lock, and the exit,
            until the next line.
        typing: shows the unfinished line of a terminal. The terminal then neither echoes nor edits, until the generator is closed.
    """
    editor = LineEditor(interactive=typing is not None)
    with _no_echo(descriptor) if typing is not None else nullcontext():
        queue = _start_reading(descriptor)
        while not editor.ended and (data := await queue.get()):
            for line in editor.feed(data):
                yield line
            if typing is not None:
                typing(editor.text)
    if editor.text and not editor.ended:
        yield editor.text


def _start_reading(descriptor: int) -> asyncio.Queue[bytes]:
    """What is read, as it comes; empty bytes at the end."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED_READS)

    def read() -> None:
        data = b"more"
        while data:
            try:
                data = os.read(descriptor, _READ_BYTES)
            except OSError:
                data = b""  # closed, or gone
            put = queue.put(data)
            try:
                # Waits for room, so that a large file is read no faster than it is used.
                asyncio.run_coroutine_threadsafe(put, loop).result()
            except (RuntimeError, CancelledError):
                put.close()  # the loop has ended: nobody reads any more
                return

    threading.Thread(target=read, name="keyboard", daemon=True).start()
    return queue


@contextmanager
def _no_echo(descriptor: int) -> Iterator[None]:
    """Keys come one by one and unseen; Ctrl-C still interrupts."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)  # keeps what was typed before
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

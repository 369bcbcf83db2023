"""What a caller may ask of a running session, in plain values. Each door reads them from its own wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model_core.acts import Keys
from model_core.types import Codec


@dataclass(frozen=True, slots=True)
class ChangePrompt:
    """Show another prompt. `replace_from`: the first frame that may be made again; None for frames that were not sent yet."""

    prompt: str
    request_id: int = 0
    replace_from: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """Hold these keys and no others, in a model that takes actions; `replace_from` as in `ChangePrompt`."""

    keys: Keys
    request_id: int = 0
    replace_from: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Stand still."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on after a pause."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End before the next chunk."""


@dataclass(frozen=True, slots=True)
class GiveSource:
    """Frames of the source that the session restyles, one item each: raw ones of the served size, or JPEG pictures of any size.

    The first one is number `first_frame`.
    """

    first_frame: int
    codec: Codec
    data: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EndSource:
    """The source has no further frames."""


Control = ChangePrompt | Act | Pause | Resume | Stop | GiveSource | EndSource
Controls = Callable[[], Awaitable[Control | None]]
"""Waits for the caller's next control. None: the caller sends no more. Raises InvalidRequest for anything that is no control."""

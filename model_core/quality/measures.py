"""What frames show without any learning: how much they flicker, how smoothly they move, how many are frozen or black.

The numbers are proxies; docs/quality.md says what each of them means, and what it does not. Frames are uint8 RGB `[N, H, W, 3]`. All sums
are of whole numbers, and are divided once, at the end: equal frames give equal numbers on any replica, however they are cut into chunks.
Memory does not grow with length.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from model_core.media import Frames
from model_core.quality.values import Measures

_FULL = 255
_LONGEST_SIDE = 128  # of the pictures that motion is looked for in, in pixels
_BLOCK, _REACH = 8, 4  # pixels: what moves as one, and how far it may from a frame to its neighbour
_FROZEN_OF_1000 = 1  # mean change, of 1000, up to which a frame repeats the one before: FFmpeg's freezedetect has the same
_BLACK_LUMA = 25  # a tenth of white, and
_BLACK_PERCENT = 98  # of all pixels: FFmpeg's blackdetect has the same

Luma = NDArray[np.int32]  # [h, w], 0 to 255


class Meter:
    """Takes the frames of one video as they come, and has the numbers at any time. Keeps two of them.

    Raises:
        ValueError: from `add`: no frames as described above, or of another size than the first ones.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._frames = self._steps = self._middles = self._black = self._frozen = self._longest = self._still = 0
        self._change = self._worst = 0  # sums over values of pixels
        self._bend = self._error = 0  # sums over pixels of reduced pictures; that of brightness is doubled
        self._last: Frames | None = None
        self._lumas: tuple[Luma, ...] = ()  # of the last two frames

    @property
    def frames(self) -> int:
        """So far."""
        return self._frames

    def add(self, frames: Frames) -> None:
        """The next frames, one at least."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise ValueError(f"frames must be uint8 [N, H, W, 3], none of them 0; got {frames.dtype} {list(frames.shape)}")
        size = (frames.shape[1], frames.shape[2])
        if self._size not in {None, size}:
            raise ValueError(f"frames must all have one size; got {size[1]}x{size[0]} after others")
        self._size = size
        for frame in frames:
            self._take(frame)

    def cut(self) -> None:
        """What comes next does not follow what came last: no step leads from one to the other."""
        self._last, self._lumas, self._still = None, (), 0

    def measures(self) -> Measures:
        """Of all frames so far.

        Raises:
            ValueError: there are none.
        """
        if self._size is None:
            raise ValueError("a measure needs a frame; got none")
        height, width = self._size
        values, pixels = 3 * width * height * _FULL, _reduced_pixels(height, width) * _FULL
        return Measures(
            frames=self._frames, width=width, height=height,
            flicker=_share(self._change, values * self._steps), worst_flicker=_share(self._worst, values) if self._steps else None,
            brightness_flicker=_share(self._bend, 2 * pixels * self._middles), smoothness=_less(self._error, pixels * self._middles),
            frozen_share=_share(self._frozen, self._steps), longest_frozen_frames=self._longest, black_share=self._black / self._frames,
        )  # fmt: skip

    def _take(self, frame: Frames) -> None:
        luma = reduced_luma(frame)
        self._frames += 1
        self._black += 100 * int((luma <= _BLACK_LUMA).sum()) >= _BLACK_PERCENT * luma.size
        if self._last is not None:
            change = int((np.maximum(frame, self._last) - np.minimum(frame, self._last)).sum(dtype=np.int64))
            frozen = 1000 * change <= _FROZEN_OF_1000 * _FULL * frame.size
            self._steps += 1
            self._change += change
            self._worst = max(self._worst, change)
            self._still = self._still + 1 if frozen else 0
            self._frozen += frozen
            self._longest = max(self._longest, self._still)
        if len(self._lumas) == 2:
            before, between = self._lumas
            self._middles += 1
            self._bend += abs(2 * int(between.sum()) - int(before.sum()) - int(luma.sum()))
            self._error += int(np.abs(predicted(before, luma) - between).sum())
        self._last = frame.copy()  # of what it may be a part of
        self._lumas = (*self._lumas[-1:], luma)


def measured(chunks: Iterable[Frames]) -> Measures:
    """Of all frames of `chunks`, which follow each other. Raises ValueError as `Meter`."""
    meter = Meter()
    for frames in chunks:
        meter.add(frames)
    return meter.measures()


def reduced_luma(frame: Frames) -> Luma:
    """Brightness of a frame `[H, W, 3]`, by blocks of pixels, so that no side is longer than 128. What is left at the edges is cut."""
    factor = _factor(frame.shape[0], frame.shape[1])
    height, width = max(1, frame.shape[0] // factor), max(1, frame.shape[1] // factor)
    wide = frame[: height * factor, : width * factor].astype(np.uint16)
    luma = (77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8  # ITU-R BT.601 in 256ths
    if factor == 1:
        return luma.astype(np.int32)
    rows, columns = min(factor, frame.shape[0]), min(factor, frame.shape[1])
    blocks = luma.reshape(height, rows, width, columns).sum(axis=(1, 3), dtype=np.int64)
    reduced: Luma = (blocks // (rows * columns)).astype(np.int32)
    return reduced


def predicted(before: Luma, after: Luma) -> Luma:
    """The picture between two pictures `[h, w]`.

    Each block goes the one way, of at most 4 pixels to either side, along which the two agree best; of equally good ones the shortest.
    """
    height, width = before.shape
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    margins = ((_REACH, _REACH + rows * _BLOCK - height), (_REACH, _REACH + columns * _BLOCK - width))
    size = (rows * _BLOCK, columns * _BLOCK)
    # [9, 9, h, w]: where a pixel came from, and where it goes to on the same line.
    came = sliding_window_view(np.pad(before.astype(np.int16), margins, mode="edge"), size).reshape(-1, *size)
    goes = sliding_window_view(np.pad(after.astype(np.int16), margins, mode="edge"), size)[::-1, ::-1].reshape(-1, *size)
    apart = np.abs(came - goes).reshape(-1, rows, _BLOCK, columns, _BLOCK).sum(axis=(2, 4), dtype=np.int32)
    order = _shortest_first()
    best = order[apart[order].argmin(axis=0)]  # [rows, columns]
    ways = best.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[None]
    middle = np.take_along_axis(came, ways, axis=0)[0].astype(np.int32) + np.take_along_axis(goes, ways, axis=0)[0]
    picture: Luma = ((middle + 1) >> 1)[:height, :width]
    return picture


def _shortest_first() -> NDArray[np.intp]:
    """Numbers of all ways, the shortest first."""
    side = 2 * _REACH + 1
    rows, columns = np.divmod(np.arange(side * side), side)
    return np.argsort((rows - _REACH) ** 2 + (columns - _REACH) ** 2, kind="stable")


def _factor(height: int, width: int) -> int:
    return -(-max(height, width) // _LONGEST_SIDE)


def _reduced_pixels(height: int, width: int) -> int:
    factor = _factor(height, width)
    return max(1, height // factor) * max(1, width // factor)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _less(part: int, whole: int) -> float | None:
    return 1 - part / whole if whole else None

"""What may be done to frames after they are decoded: more of them, and larger ones. Loads without torch."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.messages import Message

FRAMES = (1, 2)
SIZES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Enhancement(Message):
    """So many times the frames, and so many times the height and the width. Ones leave them as the model renders them.

    Attributes:
        frames: one of `FRAMES`; in a replay, 4 as well.
        size: one of `SIZES`.
        slow: times slower than the model's own playback; a divisor of `frames`.
    """

    frames: int = 1
    size: int = 1
    slow: int = 1

    def __str__(self) -> str:
        slower = f", {self.slow} times slower" if self.slow > 1 else ""
        return f"frames {self.frames}, size {self.size}{slower}"

    def __bool__(self) -> bool:
        return (self.frames, self.size, self.slow) != (1, 1, 1)


AS_RENDERED = Enhancement()

"""Where the time of a change of prompt goes: from what the page sent, received and appended until the new picture was painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.kit.tally import quantile


@dataclass(frozen=True, slots=True)
class SwitchParts:
    """One change. Times in milliseconds since Enter; frames are numbers of the video.

    Attributes:
        plays: the frame that was on the screen when the prompt was sent.
        replace_from: what the page asked for; None where it could not say.
        first_frame: where the prompt took effect.
        applied_ms: its acknowledgement came.
        came_ms: its first chunk came.
        appended_ms: that was in the buffer.
        plays_then: the frame that was on the screen at that time.
        painted_ms: its first picture was on the screen; `painted` is the number of that.
    """

    plays: int
    replace_from: int | None
    first_frame: int
    applied_ms: float
    came_ms: float
    appended_ms: float
    plays_then: int
    painted_ms: float
    painted: int

    @property
    def told(self) -> str:
        asked = "-" if self.replace_from is None else f"+{self.replace_from - self.plays}"
        return (
            f"plays {self.plays}, replaces from {asked}, in force from +{self.first_frame - self.plays}; "
            f"acknowledged {self.applied_ms:.0f} ms, came {self.came_ms:.0f} ms, "
            f"appended {self.appended_ms:.0f} ms at +{self.plays_then - self.plays}, "
            f"painted {self.painted_ms:.0f} ms at +{self.painted - self.plays}"
        )


def switch_parts(found: dict[str, Any], fps: int) -> SwitchParts | None:
    """The parts in what `pictures.until` found; None where one of them is missing.

    Args:
        found: `ms`, `time` and `marks`: see `pictures.js`.
        fps: of the video.
    """
    marks: list[dict[str, Any]] = found.get("marks") or []
    sent = next((mark for mark in marks if mark["what"] == "sent" and mark["event"] == "prompt"), None)
    applied = next((mark for mark in marks if mark["what"] == "came" and mark["event"] == "prompt_applied"), None)
    if sent is None or applied is None:
        return None
    later = marks[marks.index(applied) :]
    first = applied["first_frame"]
    came = next((mark for mark in later if mark["what"] == "came" and mark["event"] == "frames" and mark["first_frame"] == first), None)
    if came is None:
        return None
    appended = next((mark for mark in marks[marks.index(came) :] if mark["what"] == "appended"), None)
    if appended is None:
        return None

    def frame(time_s: float) -> int:
        return int(time_s * fps + 1e-6)

    return SwitchParts(
        frame(sent["time"]), sent["replace_from"], first, applied["at"], came["at"], appended["at"], frame(appended["time"]),
        found["ms"], round(found["time"] * fps),
    )  # fmt: skip


def table(parts: Sequence[SwitchParts]) -> list[str]:
    """Lines: quantiles of each part."""
    names = (("acknowledged", "applied_ms"), ("came", "came_ms"), ("appended", "appended_ms"), ("painted", "painted_ms"))
    lines = []
    for told, name in names:
        values = [getattr(each, name) for each in parts]
        lines.append(f"  {told:14}{quantile(values, 0.5):>6.0f} ms{quantile(values, 0.99):>6.0f} ms{len(values):>5}")
    return lines

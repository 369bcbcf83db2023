"""The parts of a change of prompt, as they are read from what the page did."""

from __future__ import annotations

from typing import Any

from bench.operate.switch_parts import SwitchParts, switch_parts, table

FPS = 24


def mark(at: float, what: str, frame: int, **given: Any) -> dict[str, Any]:
    return {"at": at, "what": what, "time": frame / FPS, **given}


MARKS = [
    mark(5.0, "sent", 24, event="prompt", replace_from=32),
    mark(40.0, "came", 25, event="frames", first_frame=48),
    mark(41.0, "append", 25),
    mark(43.0, "appended", 25),
    mark(90.0, "came", 26, event="prompt_applied", first_frame=32),
    mark(240.0, "came", 29, event="frames", first_frame=32),
    mark(241.0, "came", 29, event="bytes"),
    mark(242.0, "append", 29),
    mark(245.0, "appended", 29),
]
FOUND = {"ms": 330.0, "time": 32 / FPS, "marks": MARKS}


def test_the_chunk_that_answers_the_prompt_counts_and_not_one_on_its_way() -> None:
    parts = switch_parts(FOUND, FPS)
    assert parts == SwitchParts(24, 32, 32, 90.0, 240.0, 245.0, 29, 330.0, 32)
    assert parts.told == (
        "plays 24, replaces from +8, in force from +8; acknowledged 90 ms, came 240 ms, appended 245 ms at +5, painted 330 ms at +8"
    )
    assert table([parts])[1] == "  came             240 ms   240 ms    1"


def test_where_something_is_missing_there_are_no_parts() -> None:
    for number in (0, 4, 5):
        assert switch_parts({**FOUND, "marks": MARKS[:number] + MARKS[number + 1 :]}, FPS) is None
    assert switch_parts({**FOUND, "marks": MARKS[:7]}, FPS) is None, "nothing was appended"
    assert switch_parts({"ms": 330.0, "time": 1.0}, FPS) is None

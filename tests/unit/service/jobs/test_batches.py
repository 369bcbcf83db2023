"""JSONL files of prompts, and what is said of bad ones."""

from __future__ import annotations

import json

import pytest

from model_core.errors import InvalidRequest
from service.jobs.desk.batches import MAX_BYTES, MAX_ROWS, read_rows
from service.jobs.job import NewJob, Presentation, Tier
from service.orders import Doorway, Mode, VideoRequest


def wrong(data: bytes) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        read_rows(data, "batch")
    return {violation.field: violation.description for violation in caught.value.violations}


def test_a_row_has_a_prompt_and_perhaps_more() -> None:
    full = {
        "prompt": "a blue ball", "model": "sora-2", "seconds": 2, "seed": 2**64 - 1, "size": "1280x720", "steps": 6, "guidance": 1.5,
        "negative_prompt": "red", "tier": "flex", "labels": {"team": "x"},
    }  # fmt: skip
    plain, rich = read_rows(b'{"prompt": "a red ball"}\n\n' + json.dumps(full).encode() + b"\r\n", "batch")
    doorway = Doorway(Mode.JOB, "rows[0].", lacks=plain.doorway.lacks)
    assert plain == NewJob(door="batch", request=VideoRequest(prompt="a red ball", seconds=4.0), doorway=doorway)
    assert rich.request == VideoRequest(
        prompt="a blue ball", model="sora-2", seconds=2.0, seed=2**64 - 1, steps=6, guidance=1.5, negative_prompt="red"
    )
    assert (rich.presentation, rich.tier, rich.labels) == (Presentation(1280, 720), Tier.FLEX, {"team": "x"})
    assert rich.doorway.path("seconds") == "rows[1].seconds"


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        (b"nonsense", "rows[0]", "must be a JSON object; got b'nonsense'"),
        (b"[1]", "rows[0]", "must be a JSON object"),
        (b"\xff\xfe", "rows[0]", "must be a JSON object"),
        (b"[" * 100_000, "rows[0]", "must be a JSON object"),
        (b'{"prompt": 7}', "rows[0].prompt", "must be text; got 7"),
        (b'{"seconds": "4"}', "rows[0].seconds", 'must be a number; got "4"'),
        (b'{"seconds": true}', "rows[0].seconds", "must be a number; got true"),
        (b'{"seconds": 1' + b"0" * 400 + b"}", "rows[0].seconds", "must be a number; got 1000"),
        (b'{"seed": -1}', "rows[0].seed", "must be a whole number of 64 bits; got -1"),
        (b'{"seed": 1.5}', "rows[0].seed", "must be a whole number of 64 bits; got 1.5"),
        (b'{"steps": -1}', "rows[0].steps", "must be a whole number; got -1"),
        (b'{"size": "wide"}', "rows[0].size", 'must be WIDTHxHEIGHT; got "wide"'),
        (b'{"tier": "gold"}', "rows[0].tier", 'must be one of priority, default, flex; got "gold"'),
        (b'{"labels": {"a": 1}}', "rows[0].labels", "must be an object of texts"),
        (b'{"promt": "typo"}', "rows[0].promt", "must be one of prompt, model"),
    ],
)
def test_a_bad_row_is_named(row: bytes, field: str, said: str) -> None:
    found = wrong(row)
    assert list(found) == [field]
    assert said in found[field]


def test_a_file_has_rows_and_bounds() -> None:
    assert wrong(b"\n \n")["rows"] == f"must be from 1 to {MAX_ROWS}; got 0"
    assert wrong(b"{}\n" * (MAX_ROWS + 1))["rows"] == f"must be from 1 to {MAX_ROWS}; got {MAX_ROWS + 1}"
    assert wrong(b" " * (MAX_BYTES + 1))["rows"] == f"must be at most {MAX_BYTES} bytes; got {MAX_BYTES + 1}"


def test_of_many_bad_rows_the_first_are_named() -> None:
    assert list(wrong(b"x\n" * 500)) == [f"rows[{number}]" for number in range(20)]

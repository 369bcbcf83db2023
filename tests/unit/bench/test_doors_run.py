"""The table of doors, and what counts as passed."""

from __future__ import annotations

from bench.doors.run import HERE, Keys, Result, doors, table


def row(outcome: str) -> dict[str, object]:
    return {"door": "own", "case": "create", "outcome": outcome, "detail": "", "seconds": 1.5}


def test_a_door_passes_only_when_it_has_said_something_and_nothing_failed() -> None:
    assert not Result("own").passed
    assert not Result("own", [row("passed")], "exit code 1").passed
    assert not Result("own", [row("passed"), row("failed")]).passed
    assert Result("own", [row("passed"), row("skipped")]).passed


def test_the_table_has_a_row_for_each_case_and_for_each_door_that_said_nothing() -> None:
    lines = list(table([Result("own", [row("passed"), row("failed")]), Result("other", error="it did not end")]))
    assert [line.split()[0] for line in lines[:-1]] == ["passed", "failed", "failed"]
    assert "it did not end" in lines[2]
    assert lines[-1] == "1 passed, 0 skipped, 1 failed; 0 of 2 doors"


def test_every_check_has_an_environment() -> None:
    assert "own" in doors()
    named = {path.name for path in HERE.glob("requirements-*.txt")}
    assert {f"requirements-{'openai' if door == 'azure' else door}.txt" for door in doors()} <= named


def test_amazons_client_signs_and_the_others_send_a_key() -> None:
    keys = Keys("k", "a:b", "w", "s", "c:d")
    assert keys.arguments("bedrock") == ["--key", "a:b", "--wrong-key", "w", "--spent-key", "c:d"]
    assert keys.arguments("own") == ["--key", "k", "--wrong-key", "w", "--spent-key", "s"]
    assert Keys().arguments("own") == ["--key", "none"]

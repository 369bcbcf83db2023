"""Every code block of the documents is run by the test that it names, or says why none runs it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.documents import ROOT, RUNNABLE, Block, blocks
from tests.unit.project.test_layout import documents

OPERATE = "tests/ray/test_operate.py::test_an_operator_can_follow_the_page"


def every_block() -> list[Block]:
    found = [block for document in documents() for block in blocks(document)]
    assert found
    return found


def test_every_block_has_a_language() -> None:
    assert [block.place for block in every_block() if not block.language] == []


def test_every_block_is_found() -> None:
    """None hides behind a form that the pattern does not read: a fence with more words, or one that is not closed."""
    fences = {d: len(re.findall(r"^ *```", d.read_text(), re.MULTILINE)) for d in documents()}
    assert {d.name: n for d, n in fences.items() if n != 2 * len(blocks(d))} == {}


def test_every_block_that_could_be_run_says_what_runs_it() -> None:
    assert [block.place for block in every_block() if block.language in RUNNABLE and not block.kind] == []


def test_commands_stand_in_fences() -> None:
    """Not in lines that are only indented, which have no language and no marker."""
    indented = re.compile(r"\n\n {4,}(?:ray|serve|headrace|make|python|pip|\.venv/bin/\w+) .*\n")
    assert [d.name for d in documents() if indented.search(d.read_text())] == []


def test_the_tests_that_blocks_name_exist() -> None:
    named = {(block.place, block.of) for block in every_block() if block.kind == "tested"}
    assert named
    missing = []
    for place, test in named:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text()) if (ROOT / path).is_file() else ast.Module([], [])
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        if not name or name not in functions:
            missing.append((place, test))
    assert missing == []


def test_a_reason_is_a_sentence_and_names_only_files_that_exist() -> None:
    reasons = {block.place: block.of for block in every_block() if block.kind == "untested"}
    assert reasons
    assert {place: reason for place, reason in reasons.items() if len(reason.split()) < 4} == {}
    paths = {(place, path) for place, reason in reasons.items() for path in re.findall(r"\b(?:tests|bench|docs)/[\w/.-]+\w", reason)}
    assert {(place, path) for place, path in paths if not (ROOT / path).exists()} == set()


def test_a_block_that_an_operator_runs_elsewhere_is_on_the_operators_page() -> None:
    """The test of docs/operate-on-ray.md runs that page alone; another page may name it for commands that stand there."""
    page = {line for block in blocks(ROOT / "docs" / "operate-on-ray.md") for line in block.text.splitlines()}
    claimed = [block for block in every_block() if block.of == OPERATE]
    assert claimed
    assert [block.place for block in claimed if not set(block.text.splitlines()) <= page] == []


def test_a_marker_is_read_with_its_block(tmp_path: Path) -> None:
    path = ROOT / "docs" / "quick-start.md"
    first = blocks(path)[0]
    assert (first.kind, first.language, first.text) == ("untested", "sh", "make install\n")

"""ARCHITECTURE.md against the code: its layers, its line for each file, and its glossary."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.unit.project.test_layout import ROOT, relative, sources

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
# Folders that have a line for each of their files.
LISTED = ("deployments", "doors", "service")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_layers_are_those_that_the_contract_holds() -> None:
    drawn = re.search(r"```text\n(.*?)```", section("Layers"), re.DOTALL)
    assert drawn is not None
    layers = [{part.strip() for part in re.split(r"  +", line)[0].split("|")} for line in drawn[1].splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [held] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert layers == [{part.strip() for part in layer.split("|")} for layer in held]


@pytest.mark.parametrize("folder", LISTED)
def test_every_file_has_one_line(folder: str) -> None:
    listed = re.findall(rf"^\| `({folder}/[\w/]+\.py)` \| .+ \|$", TEXT, re.MULTILINE)
    files = {relative(p) for p in sources() if relative(p).startswith(f"{folder}/") and p.name != "__init__.py"}
    assert set(listed) == files
    assert [file for file in files if listed.count(file) > 1] == []


def test_five_files_to_read_first() -> None:
    items = re.findall(r"^\d\. `([\w/]+\.py)`", section("Read these five files first"), re.MULTILINE)
    assert len(items) == 5
    assert [item for item in items if not (ROOT / item).is_file()] == []


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    words = [row[0] for row in rows("Glossary")]
    assert words == sorted(set(words), key=str.lower)

"""What the project's habits stand on: settings that parse, one pin a package, a change log in one form, a help that has everything."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml

from tests.unit.project.test_layout import ROOT, relative, tracked

REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))


def pins() -> dict[str, set[str]]:
    """Every pinned package, by each of its pins."""
    found: dict[str, set[str]] = {}
    for path in REQUIREMENTS:
        for name, version in re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", path.read_text(), re.MULTILINE):
            found.setdefault(name, set()).add(version)
    return found


def test_settings_parse() -> None:
    settings = [p for p in tracked() if p.suffix in {".yaml", ".yml", ".toml"}]
    assert len(settings) > 3
    for path in settings:
        if path.suffix == ".toml":
            tomllib.loads(path.read_text())
        else:
            list(yaml.parse(path.read_text()))  # the form alone: mkdocs.yaml has tags that only MkDocs knows


def test_a_package_has_one_pin() -> None:
    found = pins()
    assert "torch" in found
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


def test_hooks_run_programs_that_are_pinned() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"  # so that there is no second pin, and nothing to fetch from elsewhere
    programs = {hook["entry"].split()[0] for hook in local["hooks"]}
    packages = {".venv/bin/ruff": "ruff", ".venv/bin/lint-imports": "import-linter", ".venv/bin/pytest": "pytest"}
    assert programs <= {*packages, "make"}
    assert set(packages.values()) <= set(pins())


def test_help_lists_every_target_in_a_group() -> None:
    help_ = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^  make ([a-z-]+) ", help_, re.MULTILINE)) == targets
    assert re.match(r"\n\w[^\n]*\n  make ", help_), "the first target stands under a heading"
    assert len(re.findall(r"^\w", help_, re.MULTILINE)) > 3


def test_the_change_log_has_the_form_that_tools_read() -> None:
    """As keepachangelog.com has it: the newest first, and what is on the way above."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions[1].startswith(f"[{project['version']}]")


@pytest.mark.parametrize("name", [p.name for p in REQUIREMENTS])
def test_a_reason_stands_beside_each_requirement(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if "==" in line and not line.startswith("#")]
    assert lines or name == "requirements-cuda.txt"
    assert [line for line in lines if " # " not in line and "--hash=" not in line] == []


def test_pictures_on_the_first_screen_are_small() -> None:
    pictures = [p for p in tracked() if relative(p).startswith("docs/images/") and p.suffix != ".py"]
    assert pictures
    assert [relative(p) for p in pictures if p.stat().st_size > 300_000] == []

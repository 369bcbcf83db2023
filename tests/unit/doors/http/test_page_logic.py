"""Runs the tests of the page's logic, which are JavaScript, in Node.js where it is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "page"
NODE = shutil.which("node")
FILES = sorted(HERE.glob("*.test.mjs"))


def test_there_are_tests() -> None:
    assert {path.name.removesuffix(".test.mjs") for path in FILES} >= {"link", "playout", "protocol", "resume", "state"}


@pytest.mark.skipif(NODE is None, reason="the page's logic is JavaScript, and there is no Node.js to run its tests")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".test.mjs"))
def test_logic(path: Path) -> None:
    assert NODE is not None
    ran = subprocess.run([NODE, "--test", str(path)], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert "# pass 0" not in ran.stdout

"""The commands and the Python of README and the quick start, as they stand there, against a server without a model."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from headrace.cli import app
from tests.documents import ROOT, Block, named_by
from tests.served import serving

HERE = "tests/unit/project/test_samples.py"
PAGES = [ROOT / "README.md", ROOT / "docs" / "quick-start.md"]
WITHIN_S = 800.0


def shown(test: str) -> list[Block]:
    found = named_by(f"{HERE}::{test}", PAGES)
    assert found, "the pages show something for this test to run"
    return found


def commands(blocks: list[Block], address: str = "") -> str:
    """One script: each command of this checkout, and at this test's server."""
    text = "\n".join(block.text for block in blocks).replace("127.0.0.1:50051", address)
    at = f" --address {address}" if address else ""
    text = re.sub(r"^\.venv/bin/(?!headrace)", f"{Path(sys.executable).parent}/", text, flags=re.MULTILINE)
    return re.sub(r"^\.venv/bin/headrace (\w+)", rf"{sys.executable} -m headrace \1{at}", text, flags=re.MULTILINE)


async def run(*command: str, folder: Path) -> str:
    """What the command prints. Its input is closed, as nobody types."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, out.decode() + err.decode()
    return out.decode()


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def shell(script: str, folder: Path) -> str:
    return await run("bash", "-euo", "pipefail", "-c", script, folder=folder)


async def test_commands_run(tmp_path: Path) -> None:
    async with serving() as served:
        said = await shell(commands(shown("test_commands_run"), served.address), tmp_path)
    assert "SERVING" in said
    assert "headrace.v1.VideoService" in said
    assert "max_prompt_bytes" in said  # of ListModels
    assert made(tmp_path) == {"circle.mp4", "on.mp4", "restyled.mp4", "steered.mp4"}


async def test_python_with_a_server(tmp_path: Path) -> None:
    [block] = shown("test_python_with_a_server")
    async with serving() as served:
        said = await run(sys.executable, "-c", block.text.replace("127.0.0.1:50051", served.address), folder=tmp_path)
    assert sum(int(line.split()[1]) for line in said.splitlines()) == 48  # two seconds


def test_a_command_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has the libraries already."""
    [block] = shown("test_a_command_without_a_server")
    program, *arguments = shlex.split(block.text)
    assert program == ".venv/bin/headrace"
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, made(tmp_path)) == (0, {"square.gif"}), done.output


def test_python_without_a_server() -> None:
    first, *others = shown("test_python_without_a_server")
    assert {block.text for block in others} <= {first.text}
    names: dict[str, Any] = {}
    exec(first.text, names)  # noqa: S102 - a page of this repository
    asyncio.run(names["pipeline"].aclose())
    assert (names["frames"].shape, names["frames"].dtype) == ((48, 64, 64, 3), np.uint8)

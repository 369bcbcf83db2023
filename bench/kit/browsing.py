"""A Chromium beside this process: commands to `bench/operate/browser.py`, which runs in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.kit.environments import environment
from deployments.cluster.local import ROOT

PROGRAM = ROOT / "bench" / "operate" / "browser.py"
REQUIREMENTS = ROOT / "bench" / "operate" / "requirements-page.txt"
_END_WITHIN_S = 20.0


class BrowserFailed(Exception):
    """It did not do what it was told."""


class Browsing:
    """Its commands: see `Chromium` there."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, command: str, **given: Any) -> Any:
        """Run one. Raises BrowserFailed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise BrowserFailed("its input and output must be pipes")
        self._process.stdin.write(json.dumps({"do": command, **given}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BrowserFailed(f"it ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise BrowserFailed(f"{command}: {answer['error']}")
        return answer["answer"]


@contextmanager
def browsing(folder: Path) -> Iterator[Browsing]:
    """One that runs.

    Args:
        folder: where its environment is.
    """
    python = environment(REQUIREMENTS, folder)
    surroundings = {**os.environ, "no_proxy": "127.0.0.1,localhost"}
    process = subprocess.Popen([str(python), str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings)
    try:
        yield Browsing(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()

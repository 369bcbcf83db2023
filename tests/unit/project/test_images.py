from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMAGES = sorted((ROOT / "deploy").rglob("*Dockerfile"))


def test_there_is_an_image_for_every_runtime() -> None:
    assert {path.name for path in IMAGES} >= {"cpu.Dockerfile", "cuda.Dockerfile", "neuron.Dockerfile"}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_description_is_sound_and_names_files_that_exist(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith("COPY ")]
    assert [name for line in lines for name in line[1:-1] if not name.startswith("--") and not (ROOT / name).exists()] == []

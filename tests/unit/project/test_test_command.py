"""The test command itself: no part of it hides another, and no instruction set is asked of a processor that lacks it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.instruction_sets import beside, missing

ROOT = Path(__file__).parents[3]
MAKE = shutil.which("make") or "make"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the real Makefile finds everything installed, and a part that fails between two that do not."""
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-weights.txt", "pyproject.toml", "installed"):
        (tmp_path / name).touch()
    rules = "".join(f"{name}:\n\t@echo {name} ran; {end}\n" for name, end in (("first", "true"), ("broken", "false"), ("last", "true")))
    (tmp_path / "Makefile").write_text(f"include {ROOT / 'Makefile'}\n.PHONY: first broken last\n{rules}")
    return tmp_path


def make_test(folder: Path, parts: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        [MAKE, "test", "STAMP=installed", f"PARTS={parts}"], cwd=folder, env=plain, capture_output=True, text=True, check=False
    )


def test_a_part_that_fails_hides_no_other_and_is_named_in_the_end(folder: Path) -> None:
    done = make_test(folder, "first broken last")
    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if line.endswith(" ran")] == ["first ran", "broken ran", "last ran"]
    assert done.stdout.splitlines()[-1] == "FAILED: broken"


def test_without_a_failure_it_says_so(folder: Path) -> None:
    done = make_test(folder, "first last")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "passed: first last")


@pytest.mark.parametrize(("ends", "last"), [("true", "passed: test-ray types"), ("false", "FAILED: types")])
def test_types_are_checked_beside_the_cluster_tests_and_count_as_a_part(folder: Path, ends: str, last: str) -> None:
    with (folder / "Makefile").open("a") as rules:
        rules.write("test-ray:\n\t@until [ -e checking ]; do sleep 0.01; done; echo clusters ran\n")
        rules.write(f"types:\n\t@touch checking; echo types ran; {ends}\n")
    done = make_test(folder, "test-ray types")
    assert (done.returncode == 0) == (ends == "true")
    assert [line for line in done.stdout.splitlines() if line.endswith(" ran")] == ["clusters ran", "types ran"]
    assert done.stdout.splitlines()[-1] == last


def test_a_part_says_how_long_it_took(folder: Path) -> None:
    assert "== first took " in make_test(folder, "first").stdout


@pytest.mark.parametrize(
    ("capability", "flags", "sentence"),
    [
        (None, "", None),
        ("default", "", None),
        ("avx2", "fma avx2", None),
        ("avx2", "fma", "ATEN_CPU_CAPABILITY=avx2: this processor lacks avx2"),
        ("avx512", "fma avx2", "ATEN_CPU_CAPABILITY=avx512: this processor lacks avx512bw, avx512dq, avx512f, avx512vl"),
    ],
)
def test_an_instruction_set_that_is_lacking_is_named(capability: str | None, flags: str, sentence: str | None) -> None:
    assert missing(capability, flags.split()) == sentence


@pytest.mark.parametrize(("capability", "isa"), [("default", "SSE41"), ("avx2", "AVX2"), ("avx512", "AVX512_CORE")])
def test_pytorch_is_held_to_an_instruction_set_together_with_onednn(capability: str, isa: str) -> None:
    assert beside(capability)["ONEDNN_MAX_CPU_ISA"] == isa


def test_nothing_else_is_held_where_pytorch_is_not() -> None:
    assert beside(None) == beside("") == {}

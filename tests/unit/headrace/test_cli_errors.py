"""What a command says when something is wrong around it: its files, its output, its options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from headrace.cli import app, console
from headrace.cli.console import EXIT_BAD_INPUT, EXIT_FAILED, Failure, conclude
from headrace.cli.source import read_footage


def command(*arguments: str) -> int:
    """The exit code of a command that runs in this process."""
    return conclude(lambda: app(list(arguments), standalone_mode=False))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulate", "--sessions", "-5"), "error: --sessions: must be from 1 to 100000; got -5\n"),
        (("simulate", "--hours", "nan"), "error: --hours: must be from 0.02 to 168; got nan\n"),
        (("simulate", "--out", "report.txt"), "error: --out: must end in .json or .html; got report.txt\n"),
        (("simulate", "--trace", "/dev/zero"), "error: --trace: must be a file that exists; got '/dev/zero'\n"),
        (("simulate", "--profile", "/dev/zero"), "error: --profile: must be a file that exists; got '/dev/zero'\n"),
        (("trace", "/dev/null"), "error: FILE: must be a file that exists; got '/dev/null'\n"),
        (("check", "/dev/null"), "error: FILE: must be a file that exists; got '/dev/null'\n"),
        (("compile", "--dry-run", "--config", "/dev/null"), "error: --config: must be a file that exists; got '/dev/null'\n"),
        (("eval", "--prompts", "0"), "error: --prompts: must be from 1 to 4096; got 0\n"),
        (("top", "--every", "nan"), "error: --every: must be from 0.1 to 3600; got nan\n"),
        (("nonsense",), "error: No such command 'nonsense'.\n"),
    ],
)
def test_a_bad_option_is_one_line(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) == EXIT_BAD_INPUT
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("name", ["folder", "file/report.json"])
@pytest.mark.parametrize("arguments", [("eval", "--json"), ("eval", "--sheet"), ("compile", "--dry-run", "--json")])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, arguments: tuple[str, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert command(*arguments, str(tmp_path / name)) == EXIT_BAD_INPUT
    assert f"error: {arguments[-1]}: must be a file that can be written" in capsys.readouterr().err


def test_a_check_for_writing_leaves_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("kept")
    for name in ("old.json", "new/new.json"):
        console.writable_file("--json", tmp_path / name)
    assert (tmp_path / "old.json").read_text() == "kept"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["new", "old.json"]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failure_that_a_command_lets_out_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise Failure("it is\nnot there")

    def exits() -> int:
        raise typer.Exit(7)

    assert conclude(fails) == EXIT_FAILED
    assert capsys.readouterr().err == "error: it is not there\n"
    assert conclude(exits) == 7
    with pytest.raises(ZeroDivisionError):
        conclude(lambda: 1 // 0)  # a defect keeps its traceback


def test_an_image_without_an_end_is_read_up_to_the_limit(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"--image: must be a file of at most 16777216 bytes; got 16777217"):
        read_footage(Path("/dev/zero"), None)
    read, write = os.pipe()
    os.write(write, b"a picture from another program")
    os.close(write)
    try:
        assert read_footage(Path(f"/dev/fd/{read}"), None).image == b"a picture from another program"
    finally:
        os.close(read)


@pytest.mark.parametrize("arguments", [("--help",), ("check", "--json")])
def test_output_that_cannot_be_written_is_one_line_and_a_reader_that_left_is_none(arguments: tuple[str, ...]) -> None:
    run = [sys.executable, "-m", "headrace", *arguments]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (told.returncode, told.stderr.count("\n")) == (EXIT_FAILED, 1), told.stderr
    assert "No space left on device" in told.stderr
    read, write = os.pipe()
    os.close(read)
    told = subprocess.run(run, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (told.returncode, told.stderr) == (EXIT_FAILED, "")


@pytest.mark.parametrize("first", ["from model_core.quiet import quiet_libraries as q; q()", "import bench"])
def test_libraries_are_silent_before_our_first_word(first: str) -> None:
    code = f"{first}; import torchao, transformers, diffusers.models"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("", "")

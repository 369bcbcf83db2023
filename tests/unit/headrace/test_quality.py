"""`headrace quality`: what it prints of files and of jobs, and what it refuses."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import app
from headrace.cli.console import conclude
from tests.documents import ROOT, named_by
from tests.pictures import video


def run(*arguments: str) -> int:
    return conclude(lambda: app(["quality", *arguments], standalone_mode=False))


@pytest.fixture
def path(tmp_path: Path) -> str:
    made = tmp_path / "a.mp4"
    made.write_bytes(video(16))
    return str(made)


@contextmanager
def serving(job: dict[str, Any], content: bytes) -> Iterator[str]:
    """A server that has one job."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = content if self.path.endswith("/content") else json.dumps(job).encode()
            known = self.path.startswith(f"/v1/jobs/{job['id']}")
            body = told if known else b'{"error": {"message": "there is no such job"}}'
            self.send_response(200 if known else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_numbers_of_a_file_as_text_and_as_json(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == f"{path}: 16 frames of 64x64, 24 a second"
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == [
        "flicker", "brightness flicker", "smoothness", "frozen frames", "black frames",
    ]  # fmt: skip
    assert "proxy" in text
    assert run(path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["width"], told["fps"], told["reference"], told["adherence"], told["notes"]) == (
        16,
        64,
        24.0,
        None,
        None,
        [],
    )
    assert 0.9 < told["smoothness"] <= 1


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    [block] = named_by("tests/unit/headrace/test_quality.py::test_the_commands_of_the_page_run", [ROOT / "docs/quality.md"])
    monkeypatch.chdir(tmp_path)
    for name in ("circle.mp4", "original.mp4"):
        (tmp_path / name).write_bytes(video(16))
    job = {"id": "job_4k2jx09a7bqe", "object": "job", "status": "completed", "prompt": "a cat", "model": "millrace-64"}
    commands = [shlex.split(line) for line in block.text.splitlines()]
    assert len(commands) == 4
    with serving(job, video(16)) as url:
        for command in commands:
            assert command[:2] == ["headrace", "quality"]
            assert run(*(url if word.startswith("http://") else word for word in command[2:])) == 0, command
            assert capsys.readouterr().out


def test_a_file_against_itself_is_identical(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "--reference", path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    reference = told["reference"]
    assert (reference["identical"], reference["psnr_db"], reference["ssim"], reference["xpsnr_db"]) == (True, None, 1.0, None)
    assert (reference["vmaf"] is None) == bool(told["notes"])  # measured, or told why not
    assert run(path, "--reference", path) == 0
    text = capsys.readouterr().out
    assert f"against {path}" in text
    assert "identical" in text


def test_a_prompt_that_no_detector_knows_is_told(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "--prompt", "a cat at the sea") == 0
    told = capsys.readouterr()
    assert "adherence: not measured: the prompt names nothing that a detector knows" in told.err
    assert "adherence" not in told.out


def test_a_job_is_fetched_and_its_prompt_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = {"id": "job_4k2jx09a7bqe", "object": "job", "status": "completed", "prompt": "a white square", "model": "millrace-64"}
    with serving(job, video(16)) as url:
        assert run(job["id"], "--url", url, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["file"], told["frames"], told["adherence"]["windows"]) == (job["id"], 16, 1)
        assert run("job_000000000000", "--url", url) == 1
        assert "there is no such job" in capsys.readouterr().err
    with serving({**job, "model": "another"}, video(16)) as url:
        assert run(job["id"], "--url", url, "--json") == 0
        assert json.loads(capsys.readouterr().out)["adherence"] is None


def test_what_is_wrong_is_one_sentence_that_names_it(tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("no video")
    (tmp_path / "wide.mp4").write_bytes(video(16, width=96))
    cases = [
        ((str(tmp_path / "missing.mp4"),), "FILE: must be a file that exists, or the id of a job; got "),
        ((str(tmp_path / "text.txt"),), "FILE: must be a video; got a file that is none: text.txt: "),
        ((path, "--reference", str(tmp_path / "missing.mp4")), "--reference: must be a file that exists; got "),
        ((path, "--reference", str(tmp_path / "text.txt")), "--reference: must be a video; got a file that is none: text.txt: "),
        ((path, "--reference", str(tmp_path / "wide.mp4")), "--reference: must have the size of FILE, 64x64; got 96x64"),
        (("job_4k2jx09a7bqe", "--url", "ftp://x"), "--url: must be http://HOST:PORT"),
    ]
    for arguments, said in cases:
        assert run(*arguments) == 2, arguments
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"error: {said}"), told.err
        assert told.err.count("\n") == 1
    assert run("job_4k2jx09a7bqe", "--url", "http://127.0.0.1:1") == 1
    assert "headrace serve" in capsys.readouterr().err

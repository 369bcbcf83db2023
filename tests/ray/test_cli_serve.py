"""`headrace serve` as a person runs it: a process of its own, a private cluster, stages without a model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WITHIN_S = 100.0

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped `serve.yaml`, with stages that need no weights."""
    document = yaml.safe_load((ROOT / "serve.yaml").read_text())
    document["applications"][0]["args"]["stages"] = "tests.ray.fake_stages"
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def serve(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server in a process group of its own; whatever is left of the group in the end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "serve", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=WITHIN_S)


def headrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )


def ready(process: subprocess.Popen[str]) -> str:
    """The address in the READY line, which is the first line on stdout."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("READY 127.0.0.1:"), process.communicate(timeout=WITHIN_S)
    return line.removeprefix("READY ").strip()


def processes_in_session(session: int) -> list[str]:
    """Command lines of what runs in a session, zombies left out; from /proc, since `ps` cuts lines to a terminal's width."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # gone since it was listed
        if int(of) == session and state != "Z":
            found.append(line)
    return found


def nothing_left_of(session: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not processes_in_session(session):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_and_drains(config: Path, number: signal.Signals) -> None:
    with serve("--config", str(config), "--port", "0", "--metrics-port", "0") as process:
        address = ready(process)
        told = headrace("generate", "a red circle", "--address", address, "--seconds", "2", "--seed", "3", "--json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["frames"] == 48
        health = headrace("status", "--address", address, "--json")
        assert health.returncode == 0, health.stderr
        assert json.loads(health.stdout)["stages"] == dict.fromkeys(("text_encoder", "denoiser", "decoder"), "SERVING")
        process.send_signal(number)
        out, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, out) == (0, "")
        assert err.splitlines()[-1] == "draining"
        assert "Traceback" not in err
        assert nothing_left_of(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_leaves_nothing(config: Path, number: signal.Signals) -> None:
    with serve("--config", str(config), "--port", "0", "--metrics-port", "0") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "starting a local cluster\n"
        deadline = time.monotonic() + WITHIN_S
        while not any("raylet" in line for line in processes_in_session(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in err
        assert nothing_left_of(process.pid)


def test_a_start_that_cannot_succeed_says_why(config: Path, tmp_path: Path) -> None:
    missing = headrace("serve", "--config", str(tmp_path / "no.yaml"))
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr.splitlines()[-1].startswith("error: --config: must be a file that exists; got ")
    range_ = headrace("serve", "--port", "70000")
    assert (range_.returncode, range_.stderr.splitlines()[-1]) == (2, "error: --port: must be from 0 (a free one) to 65535; got 70000")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = headrace("serve", "--config", str(config), "--port", str(port), "--metrics-port", "0")
    assert (busy.returncode, busy.stdout) == (1, "")
    assert f"127.0.0.1:{port} cannot be listened on" in busy.stderr.splitlines()[-1]
    document = yaml.safe_load(config.read_text())
    document["applications"][0]["args"]["engine"] = {"slots": 0}
    config.write_text(yaml.safe_dump(document))
    wrong = headrace("serve", "--config", str(config))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "args.engine.slots: " in wrong.stderr.splitlines()[-1]
    assert "got '0'" in wrong.stderr.splitlines()[-1]

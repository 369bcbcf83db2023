"""`headrace serve` as a person runs it: a process of its own, a private cluster, stages without a model."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.identities import issued

ROOT = Path(__file__).parents[2]
WITHIN_S = 300.0  # only bounds a failing test

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped `serve.yaml`, with stages that need no weights."""
    document = yaml.safe_load((ROOT / "serve.yaml").read_text())
    args = document["applications"][0]["args"]
    args["stages"], args["front_door"]["http"]["port"] = "tests.ray.fake_stages", 0
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


ENVIRONMENT = {
    **os.environ, "PYTHONPATH": str(ROOT),
    # None of these says anything about a cluster on this machine.
    "RAY_ADDRESS": "127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1", "no_proxy": "",
}  # fmt: skip


@contextmanager
def serve(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server in a process group of its own; whatever is left of the group in the end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "serve", "--no-state", *arguments],
        cwd=ROOT, env=ENVIRONMENT,
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
        [sys.executable, "-m", "headrace", *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=WITHIN_S,
        check=False,
    )  # fmt: skip


def ready(process: subprocess.Popen[str]) -> str:
    """The address for gRPC in the READY line, which is the first line on stdout."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("READY "), process.communicate(timeout=WITHIN_S)
    return line.split()[1]


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still says on stdout and on stderr, of which lines were read before, and its end."""
    assert process.stdout is not None
    assert process.stderr is not None
    err, out = process.stderr.read(), process.stdout.read()
    process.wait(WITHIN_S)
    return out, err


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


def left_of(session: int) -> list[str]:
    """What still runs of it, after a while."""
    deadline = time.monotonic() + WITHIN_S
    while (left := processes_in_session(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def told_folder(stderr: str) -> Path:
    """Of the private cluster, from the line that says where its logs are."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("Ray is starting; its logs are in ")]
    return Path(line.removeprefix("Ray is starting; its logs are in ")).parents[1]


def with_tls(front_door: dict[str, Any], folder: Path) -> str:
    """Both doors over TLS. Returns the file of the authority."""
    server = issued("server")
    tls = {"certificate_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}
    (folder / "tls.crt").write_bytes(server.chain)
    (folder / "tls.key").write_bytes(server.key)
    front_door["tls"] = front_door["http"]["tls"] = tls
    return tls["certificate_file"]


@pytest.mark.parametrize(("number", "host", "secure"), [(signal.SIGINT, "127.0.0.1", True), (signal.SIGTERM, "::1", False)])
def test_serve_answers_and_drains(config: Path, tmp_path: Path, number: signal.Signals, host: str, secure: bool) -> None:
    """The signal goes to every process of the group, as that of a terminal or of a service manager does."""
    document = yaml.safe_load(config.read_text())
    front_door = document["applications"][0]["args"]["front_door"]
    front_door |= {"host": host, "metrics_host": host, "http": {"host": host, "port": 0}}
    trusting = ("--ca", with_tls(front_door, tmp_path)) if secure else ()
    config.write_text(yaml.safe_dump(document))
    with serve("--config", str(config), "--port", "0", "--metrics-port", "0", "--dashboard") as process:
        assert process.stderr is not None
        said = list(itertools.takewhile(lambda line: line != "Serve is starting\n", process.stderr))  # fewer where it ends before that
        (dashboard,) = [line.split()[2].rstrip(";") for line in said if line.startswith("dashboard at ")]
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(dashboard, timeout=WITHIN_S) as page:
            assert page.status == 200
        address = ready(process)
        assert address.startswith("[::1]:" if ":" in host else f"{host}:")
        told = headrace("generate", "a red circle", "--address", address, *trusting, "--seconds", "2", "--seed", "3", "--json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["frames"] == 48
        health = headrace("status", "--address", address, *trusting, "--json")
        assert health.returncode == 0, health.stderr
        assert json.loads(health.stdout)["server"] == "SERVING"
        assert json.loads(health.stdout)["stages"] == dict.fromkeys(("text_encoder", "denoiser", "decoder"), "SERVING")
        if secure:
            assert headrace("status", "--address", address).returncode == 1
        os.killpg(process.pid, number)
        out, err = rest(process)
        err = "".join(said) + err
        assert (process.returncode, out) == (0, "")
        assert "s: waiting for " in err
        assert err.splitlines()[-1] == "draining"
        assert "Traceback" not in err
        assert left_of(process.pid) == []
        assert not told_folder(err).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_leaves_nothing(config: Path, number: signal.Signals) -> None:
    with serve("--config", str(config), "--port", "0", "--metrics-port", "0") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "starting a local cluster\n"
        folder = told_folder(process.stderr.readline())
        deadline = time.monotonic() + WITHIN_S
        while not any("raylet" in line for line in processes_in_session(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, number)
        out, err = rest(process)
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in err
        assert left_of(process.pid) == []
        assert not folder.exists()


def test_a_start_that_takes_too_long_says_what_was_missing_and_keeps_the_logs(config: Path) -> None:
    late = headrace("serve", "--no-state", "--config", str(config), "--port", "0", "--metrics-port", "0", "--start-within", "1")
    assert (late.returncode, late.stdout) == (1, "")
    *_, kept, error = late.stderr.splitlines()
    assert re.fullmatch(r"error: the application did not start within 1 s; still waiting for .*", error)
    logs = Path(kept.removeprefix("the logs are kept in "))
    try:
        assert any(path.name.startswith("raylet") for path in logs.iterdir())
    finally:
        shutil.rmtree(logs)
    assert not told_folder(late.stderr).exists()


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
        busy = headrace("serve", "--no-state", "--config", str(config), "--port", str(port), "--metrics-port", "0")
    assert (busy.returncode, busy.stdout) == (1, "")
    assert f"127.0.0.1:{port} cannot be listened on" in busy.stderr.splitlines()[-1]
    document = yaml.safe_load(config.read_text())
    document["applications"][0]["args"]["engine"] = {"slots": 0}
    config.write_text(yaml.safe_dump(document))
    wrong = headrace("serve", "--no-state", "--config", str(config))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "args.engine.slots: " in wrong.stderr.splitlines()[-1]
    assert "got '0'" in wrong.stderr.splitlines()[-1]

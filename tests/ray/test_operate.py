"""The commands of docs/operate-on-ray.md, from top to bottom, on a cluster of two nodes, with a viewer who watches meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from bench.kit.nodes import descendants, kill_tree
from deployments.cluster.local import ROOT, free_port
from tests.ray.clusters import PATIENCE_S
from tests.ray.fake_stages import FOLDER_VARIABLE

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

PAGE = ROOT / "docs" / "operate-on-ray.md"
STEP_WITHIN_S = 600.0
PORTS = "--dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0"  # any: other clusters are on this machine
NODE_OPTIONS = f"{PORTS} --num-cpus=4 --object-store-memory=80000000 --disable-usage-stats"


def blocks() -> list[tuple[str, str]]:
    """Each block of commands with the heading that it stands under."""
    heading, found = "", []
    for part in re.split(r"^(## [^\n]*$|```sh$.*?^```$)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        if part.startswith("## "):
            heading = part.removeprefix("## ")
        elif part.startswith("```sh"):
            found.append((heading, part.removeprefix("```sh\n").removesuffix("```")))
    return found


class Shell:
    """One shell of an operator, whose commands stop at the first that fails. Ports and folders are this test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("6379", "8265", "50051", "9464")}
        self._home = folder / "home"
        self._home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        self._env = kept | {"HOME": str(self._home), "PATH": path, "PYTHONPATH": str(ROOT), "RAY_enable_open_telemetry": "0"}
        document = yaml.safe_load((ROOT / "serve.yaml").read_text())
        [app] = document["applications"]
        app["args"] |= {"stages": "tests.ray.fake_stages", "link_host": "127.0.0.1"}
        app["args"]["front_door"] |= {"port": self.ports["50051"], "metrics_port": self.ports["9464"], "http": {"port": None}}
        app["runtime_env"]["env_vars"] |= {"PYTHONPATH": str(ROOT), FOLDER_VARIABLE: str(folder)}
        (folder / "serve.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def run(self, commands: str) -> str:
        """What `commands` print. They begin where the last ones ended: with the same variables."""
        for name, port in self.ports.items():
            commands = re.sub(rf"\b{name}\b", str(port), commands)
        commands = commands.replace("/tmp/ray/", f"{self.folder}/ray/")  # noqa: S108 - where Ray keeps its files unless it is told
        head = f" --temp-dir={self.folder}/ray --ray-client-server-port={free_port()}" if "--head" in commands else ""
        commands = re.sub(r"^ray start .*$", lambda line: f"{line[0]} {NODE_OPTIONS}{head}", commands, flags=re.MULTILINE)
        before, after = "set -euo pipefail; set -a; [ ! -f variables ] || . ./variables; set -x", "export -p > variables"
        shell = subprocess.run(
            ["bash", "-c", f"{before}\n{commands}\n{after}"],  # noqa: S607 - bash is where the machine has it
            cwd=self.folder, env=self._env, capture_output=True, text=True, timeout=STEP_WITHIN_S, check=False,
        )  # fmt: skip
        assert shell.returncode == 0, shell.stdout + shell.stderr
        return shell.stdout

    def watch(self, seconds: float) -> subprocess.Popen[str]:
        """A viewer, in the background."""
        address = f"127.0.0.1:{self.ports['50051']}"
        command = ["-m", "headrace", "generate", "a red circle", "--address", address, "--seconds", f"{seconds:g}", "--seed", "7", "--json"]
        return subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Everything it starts is ended by process id, as `ray stop` would end other clusters too."""
    folder = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))
    try:
        yield Shell(folder)
    finally:
        for link in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                pid = int(link.parts[2])
                if f"HOME={folder}/home".encode() in link.read_bytes().split(b"\0") and pid not in (os.getpid(), *descendants(os.getpid())):
                    kill_tree(pid)
        shutil.rmtree(folder, ignore_errors=True)


def test_an_operator_can_follow_the_page(shell: Shell) -> None:
    steps = blocks()
    headings = list(dict.fromkeys(heading for heading, _ in steps))
    assert headings == [
        "Set a token", "Start the cluster", "Deploy", "Watch it", "Read logs", "Scale", "Drain a node", "Roll back", "Restart a replica",
        "Take it away",
    ]  # fmt: skip
    said: dict[str, str] = {}
    viewer: subprocess.Popen[str] | None = None
    for heading, commands in steps:
        if heading == "Scale":
            viewer = shell.watch(30.0)
        if heading == "Take it away":
            assert viewer is not None
            out, err = viewer.communicate(timeout=PATIENCE_S)
            assert viewer.returncode == 0, err
            assert json.loads(out)["frames"] == 720  # through a scaling, a drain, a roll-back and the loss of a replica
        if heading == "Read logs":  # Ray's dashboard answers 404 until the node's agent has told it where it is
            shell.run("until ray logs cluster > /dev/null 2>&1; do sleep 1; done")
        said[heading] = said.get(heading, "") + shell.run(commands)
    assert "SERVING" in said["Deploy"]
    assert "status: RUNNING" in said["Deploy"]
    assert "headrace at" in said["Watch it"]
    assert "prom_metrics_service_discovery.json" in said["Watch it"]
    assert "SERVE_REPLICA::headrace#Denoiser#" in said["Read logs"]

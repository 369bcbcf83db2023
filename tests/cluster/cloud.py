"""A Ray head with Ray's own autoscaler over the fake cloud of `provider.py`.

What is started is ended: by `close`, and by a watchdog process when this one is killed before it gets there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from bench.kit.nodes import kill_tree
from deployments.cluster.local import ROOT, free_port
from tests.cluster.provider import EVENTS, FOLDER, REFUSED, FakeCloud

HOST = "127.0.0.1"
IDLE_S = 6.0  # after so long without work a node goes
_START_WITHIN_S = 90.0
# Keys that Ray wants to find, though no command is ever run on these nodes.
_COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
# The folder's users are all processes of the cluster, since each has a log or a socket there; this process is one too, which is spared.
# The pipe ends when this process does.
_WATCHDOG = """
import os, pathlib, shutil, signal, sys
sys.stdin.buffer.read()
folder, spared = pathlib.Path(sys.argv[1]), {os.getpid(), int(sys.argv[2])}
for _ in range(20):
    found = 0
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if int(link.parts[2]) not in spared and link.readlink().is_relative_to(folder):
                os.kill(int(link.parts[2]), signal.SIGKILL)
                found += 1
        except OSError:
            pass
    if not found:
        break
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass(frozen=True, slots=True)
class NodeType:
    """What a node of this type offers, and how many of them there may be."""

    resources: Mapping[str, int]
    max_workers: int
    min_workers: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """What the cloud did: it `launched`, `refused` or `terminated` a node. `at` is in seconds since the epoch."""

    at: float
    event: str
    node_type: str
    node: str
    pids: tuple[int, ...]


class Cloud:
    """Use as a context manager.

    Args:
        node_types: what can be launched, by name.
        max_workers: how many nodes in all: the budget.
        head: what the head offers.
    """

    def __init__(self, node_types: Mapping[str, NodeType], max_workers: int, head: Mapping[str, int]) -> None:
        self._node_types = node_types
        self._max_workers = max_workers
        self._head_resources = dict(head)
        self._folder = Path(tempfile.mkdtemp(prefix="hrc-", dir="/tmp"))  # Ray's sockets need a short path
        self._head: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self.address = f"{HOST}:{free_port()}"

    def __enter__(self) -> Self:
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-c", _WATCHDOG, str(self._folder), str(os.getpid())], stdin=subprocess.PIPE, start_new_session=True
            )
            self._head = self._start_head()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def events(self, *kinds: str) -> list[Event]:
        """What the cloud did so far, oldest first; of these kinds, or all."""
        path = self._folder / EVENTS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        events = [Event(**{**row, "pids": tuple(row["pids"])}) for row in map(json.loads, lines)]
        return [event for event in events if not kinds or event.event in kinds]

    def nodes(self) -> list[Event]:
        """The launches whose node was not terminated since."""
        gone = {event.node for event in self.events("terminated")}
        return [event for event in self.events("launched") if event.node not in gone]

    def refuse(self, node_type: str) -> None:
        """From now on no node of this type can be had."""
        (self._folder / f"{REFUSED}{node_type}").touch()

    def allow(self, node_type: str) -> None:
        (self._folder / f"{REFUSED}{node_type}").unlink(missing_ok=True)

    def kill(self, node: Event) -> None:
        """SIGKILL to every process of a node: a machine that is lost."""
        for pid in node.pids:
            with suppress(ProcessLookupError):
                kill_tree(pid)

    def close(self) -> None:
        """End all processes and remove all files."""
        if self._head is not None:
            kill_tree(self._head.pid)
            self._head.wait()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _config(self) -> dict[str, Any]:
        types = {
            name: {
                "resources": dict(t.resources), "node_config": {},
                "min_workers": t.min_workers, "max_workers": t.max_workers, "priority": t.priority,
            }
            for name, t in self._node_types.items()
        }  # fmt: skip
        head = {"resources": self._head_resources, "node_config": {}, "max_workers": 0}
        provider = {
            "type": "external", "module": f"{FakeCloud.__module__}.{FakeCloud.__name__}", FOLDER: str(self._folder),
            "gcs_address": self.address, "head_node_id": FAKE_HEAD_NODE_ID, "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        }  # fmt: skip
        return {
            **{key: [] for key in _COMMANDS}, "file_mounts": {}, "cluster_synced_files": [], "rsync_exclude": [], "rsync_filter": [],
            "file_mounts_sync_continuously": False,
            "cluster_name": "fake", "max_workers": self._max_workers, "idle_timeout_minutes": IDLE_S / 60, "provider": provider,
            "auth": {}, "head_node_type": FAKE_HEAD_NODE_TYPE, "available_node_types": {FAKE_HEAD_NODE_TYPE: head, **types},
        }  # fmt: skip

    def _start_head(self) -> subprocess.Popen[bytes]:
        config = self._folder / "cluster.json"  # JSON is YAML
        config.write_text(json.dumps(self._config()), encoding="utf-8")
        custom = {name: n for name, n in self._head_resources.items() if name != "CPU"}
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
            f"--port={self.address.rsplit(':', 1)[1]}", f"--node-ip-address={HOST}", f"--temp-dir={self._folder / 'ray'}",
            "--include-dashboard=false", f"--num-cpus={self._head_resources.get('CPU', 0)}", f"--resources={json.dumps(custom)}",
            f"--object-store-memory={_OBJECT_STORE_BYTES}", f"--autoscaling-config={config}",
        ]  # fmt: skip
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),  # the autoscaler imports the provider
            "RAY_FAKE_CLUSTER": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_enable_autoscaler_v2": "1",  # what `ray up` starts
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",  # five in production
            "RAY_worker_niceness": "0",
            "RAY_enable_open_telemetry": "0",
            "RAY_health_check_period_ms": "1000",  # a lost node is noticed in seconds
            "RAY_health_check_failure_threshold": "3",
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        log = self._folder / "head.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + _START_WITHIN_S
        while b"Ray runtime started" not in log.read_bytes():
            if time.monotonic() > deadline or process.poll() is not None:
                kill_tree(process.pid)
                raise RuntimeError(f"the head did not start:\n{log.read_text()}")
            time.sleep(0.1)
        return process

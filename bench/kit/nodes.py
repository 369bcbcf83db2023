"""A Ray cluster of several nodes on one machine, whose nodes can be killed, cut off and mended.

Each node is a `ray start --block` of its own. Where this process may (root on Linux), every worker node gets a network namespace
with one virtual cable to the head: pulling it is a network cut as the others see it, with no reset to tell them. Everything started here is
remembered by process id and ended by `close`, and nothing else is.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from deployments.cluster.local import free_port

_IP = shutil.which("ip")
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_START_WITHIN_S = 60.0
_LOOPBACK = "127.0.0.1"


def with_cluster_environment() -> None:
    """Start this program anew with what Ray reads once, when it is loaded: a token of its own keeps other users of the machine out."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "GRPC_ENABLE_FORK_SUPPORT": "0"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **settings})  # noqa: S606 - itself


@dataclass
class Node:
    """A worker node. `cable` is the head's end of its virtual cable, None without a namespace."""

    name: str
    process: subprocess.Popen[bytes]
    cable: str | None
    alive: bool = field(default=True)


def descendants(pid: int) -> list[int]:
    """Process ids of all that `pid` has started, and what those have started, and so on."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parts[2]))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL to `pid` and everything below it, stopped first so that none is replaced meanwhile."""
    tree = [pid, *descendants(pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in tree:
            with suppress(ProcessLookupError):
                os.kill(each, number)


class LocalNodes:
    """The head and its workers. Use as a context manager.

    Args:
        namespaces: give each worker node a network of its own; needs root and `ip`.
    """

    def __init__(self, *, namespaces: bool) -> None:
        if namespaces and (_IP is None or os.geteuid() != 0):
            raise RuntimeError("network namespaces need root and the `ip` command")
        self._namespaces = namespaces
        self._tag = f"{os.getpid() % 10000}"
        self._subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self._folder = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))  # Ray's sockets need a short path
        self._made: list[tuple[str, ...]] = []  # commands that undo what was made, newest first
        self._workers: list[Node] = []
        self._started = 0
        self.head_host = f"{self._subnet}.1" if namespaces else _LOOPBACK
        self.address = f"{self.head_host}:{free_port()}"
        self._head: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            if self._namespaces:
                bridge = f"hrb{self._tag}"
                self._ip("link", "add", bridge, "type", "bridge", undo=("link", "del", bridge))
                self._ip("addr", "add", f"{self.head_host}/24", "dev", bridge)
                self._ip("link", "set", bridge, "up")
            port = self.address.rsplit(":", 1)[1]
            self._head = self._ray("--head", f"--port={port}", f"--temp-dir={self._folder}", "--include-dashboard=false",
                                   resources={"door": 100}, host=self.head_host, namespace=None)  # fmt: skip
            self._wait_for(self._head)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def workers(self) -> list[Node]:
        """Those that were not killed, oldest first."""
        return [node for node in self._workers if node.alive]

    def add(self) -> Node:
        """One more worker node. Nodes that start at the same time would take each other's sockets, so this returns when it has joined."""
        self._started += 1
        name, host, cable = f"w{self._started}", self.head_host, None
        namespace = None
        if self._namespaces:
            namespace, cable, end = f"hr{self._tag}{name}", f"hrv{self._tag}{name}", f"hrw{self._tag}{name}"
            host = f"{self._subnet}.{10 + self._started}"
            self._ip("netns", "add", namespace, undo=("netns", "del", namespace))
            self._ip("link", "add", cable, "type", "veth", "peer", "name", end, undo=("link", "del", cable))
            self._ip("link", "set", cable, "master", f"hrb{self._tag}")
            self._ip("link", "set", cable, "up")
            self._ip("link", "set", end, "netns", namespace)
            for command in (("addr", "add", f"{host}/24", "dev", end), ("link", "set", end, "up"), ("link", "set", "lo", "up")):
                self._ip("-n", namespace, *command)
        process = self._ray(f"--address={self.address}", resources={"stage": 100}, host=host, namespace=namespace)
        node = Node(name, process, cable)
        self._workers.append(node)
        self._wait_for(process)
        return node

    def node_of(self, pid: int) -> Node:
        """The worker node that process `pid` belongs to."""
        for node in self.workers:
            if pid in descendants(node.process.pid):
                return node
        raise LookupError(f"process {pid} belongs to no worker node")

    def kill(self, node: Node) -> None:
        """SIGKILL to every process of the node."""
        node.alive = False
        kill_tree(node.process.pid)
        node.process.wait()

    def cut(self, node: Node) -> None:
        """Pull the node's cable: packets vanish both ways. Without namespaces: stop its processes, which then answer nothing either."""
        if node.cable is not None:
            self._ip("link", "set", node.cable, "down")
        else:
            for pid in [node.process.pid, *descendants(node.process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)

    def close(self) -> None:
        """End all processes, remove all networks and files."""
        for node in self._workers:
            kill_tree(node.process.pid)
            node.process.wait()
        if self._head is not None:
            kill_tree(self._head.pid)
            self._head.wait()
        for command in reversed(self._made):
            subprocess.run([str(_IP), *command], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ray(self, *arguments: str, resources: Mapping[str, int], host: str, namespace: str | None) -> subprocess.Popen[bytes]:
        options = {
            "node-ip-address": host,
            "num-cpus": 8,
            "object-store-memory": _OBJECT_STORE_BYTES,
            "resources": json.dumps(resources),
        }
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command = [*start, *arguments, *(f"--{name}={value}" for name, value in options.items())]
        if namespace is not None:
            command = [str(_IP), "netns", "exec", namespace, *command]
        environment = {**os.environ, "RAY_worker_niceness": "0", "RAY_enable_open_telemetry": "0"}
        log = (self._folder / f"start-{self._started}.log").open("wb")
        with log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """For the node that was started last."""
        log = self._folder / f"start-{self._started}.log"
        deadline = time.monotonic() + _START_WITHIN_S
        while b"Ray runtime started" not in log.read_bytes():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"a Ray node did not start:\n{log.read_text()}")
            time.sleep(0.1)

    def _ip(self, *command: str, undo: tuple[str, ...] | None = None) -> None:
        subprocess.run([str(_IP), *command], check=True, capture_output=True)
        if undo is not None:
            self._made.append(undo)

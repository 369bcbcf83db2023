"""A Ray cluster of this process's own, on this machine: started in a new folder, and gone without a trace when it is stopped.

Ray changes the process that starts it. What this module does about that, and why:

- Signals that stop a service often go to all of its processes, and Ray's would end before the sessions are drained. They inherit a mask
  that keeps SIGTERM and SIGHUP from them; Ray itself keeps SIGINT from them in the same way.
- In the main thread Ray would put its own SIGTERM handler in place of ours, and its C++ part would install one that aborts. So Ray is
  started in a thread, and without the second handler.
- Ray asks the kernel to kill its children when their parent ends, so that none outlives its driver. The kernel takes the thread that
  started them for the parent. So that thread never ends.
- Ray keeps its token in the home folder. Where it cannot, the cluster gets a token in the environment, which lasts as long as it does.
- `RAY_ADDRESS` would make Ray join another cluster, and gRPC would ask a proxy of the environment for the way to this machine. The
  environment is changed so that they do not.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

_OBJECT_STORE_BYTES = 128 * 1024 * 1024  # chunks travel as messages, not as objects
_NOT_FOR_CHILDREN = {signal.SIGTERM, signal.SIGHUP}
_ENVIRONMENT = {
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "grpc_proxy": "",  # empty: none, whatever http_proxy says
}
_SWEEPS, _SWEEP_EVERY_S = 50, 0.1
_PYTHON, _RAY = Path(sys.executable).resolve(), Path(ray.__file__).parent
_TOKEN_MODE = "token"  # noqa: S105 - the name of a mode
_TOKEN, _TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

log = logging.getLogger(__name__)


class PrivateRay:
    """Start it, then stop it, once each. `folder` is where it keeps its files."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))  # Ray's sockets need a short path
        self._started: Future[str] = Future()

    @property
    def logs(self) -> Path:
        return self.folder / "session_latest" / "logs"

    def start(self, *, dashboard: bool) -> str:
        """Return when Ray is up: the address of its dashboard, empty for none. An interruption leaves a start under way, for `stop`."""
        os.environ.pop("RAY_ADDRESS", None)
        os.environ.update(_ENVIRONMENT)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if has_token() and not _keeps_token():
            os.environ[_TOKEN] = secrets.token_hex(32)

        def run() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_CHILDREN)
            try:
                url = self._init(dashboard=dashboard)
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                self._started.set_exception(error)
            else:
                self._started.set_result(url)
                threading.Event().wait()

        threading.Thread(target=run, name="ray-start", daemon=True).start()
        return self._started.result()

    def _init(self, *, dashboard: bool) -> str:
        context = ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 2),
            include_dashboard=dashboard,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(self.folder),
            # The default niceness lets any other process of the machine go first. Ray's exporter of metrics would listen on every
            # interface, for nobody but the dashboard.
            _system_config={"worker_niceness": 0, "enable_metrics_collection": dashboard},
        )
        return f"http://{context.dashboard_url}" if dashboard else ""

    def stop(self, *, keep_logs: bool = False) -> Path | None:
        """End every process of the cluster and delete its files. Returns where the logs are, if they were to be kept."""
        with signals_held():
            if self._started.done():  # to end a start that is under way would wait for it
                _deaf_to_terminate()
                ray.shutdown()
            kept = self._keep_logs() if keep_logs else None
            _sweep(self.folder)
        return kept

    def _keep_logs(self) -> Path | None:
        if not self.logs.is_dir():
            return None
        try:
            kept = Path(tempfile.mkdtemp(prefix="headrace-logs-"))
            shutil.copytree(self.logs.resolve(), kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        except OSError as error:  # a full disk, which may be why the start failed; what there was room for stays
            log.warning("the logs cannot be kept: %s", str(error)[:200])
            return None
        return kept


def has_token() -> bool:
    """Whether Ray, started by this process, asks everybody who connects for a token. It does unless the environment says otherwise."""
    return os.environ.get("RAY_AUTH_MODE", _TOKEN_MODE).lower() == _TOKEN_MODE


def _keeps_token() -> bool:
    """Whether Ray has been given a token, or can keep one in the home folder. Services often have none that they may write to."""
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH):
        return True
    try:
        token = Path.home() / ".ray" / "auth_token"
        if token.exists():
            return os.access(token, os.R_OK)
        token.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where nobody says which folder it is
        return False
    return os.access(token.parent, os.W_OK)


@contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP that come meanwhile are delivered afterwards, to the handlers there were before."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread alone
        return
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda told, _: held.append(told)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


def in_thread_of_its_own(work: Callable[[], object]) -> None:
    """Run `work`, and wait; for joining a cluster, where Ray would take the main thread's SIGTERM handler away."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)
        else:
            done.set_result(None)
            threading.Event().wait()

    threading.Thread(target=run, name="ray-join", daemon=True).start()
    done.result()


def _deaf_to_terminate() -> None:
    """Ray asks each of its processes to end by SIGTERM, and waits a second for those that cannot hear it."""
    node: Any = ray._private.worker._global_node  # noqa: SLF001 - Ray tells its processes nowhere else
    if node is not None:
        for info in itertools.chain.from_iterable(node.all_processes.values()):
            info.process.terminate = info.process.kill


def _sweep(folder: Path) -> None:
    """End processes and delete files until none is left: a process that is just starting may start another, and may write."""
    for _ in range(_SWEEPS):
        found = users_of(folder)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not folder.exists():
            return
        time.sleep(_SWEEP_EVERY_S)


def users_of(folder: Path) -> set[int]:
    """Ray's processes that have a file of the folder open, or name it in their command line: Ray loses sight of some.

    Whoever else looks into the folder, a pager or an editor with a log in it, is no process of Ray's.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone since it was listed, or not ours to look at
            command = (process / "cmdline").read_bytes()
            users = str(folder).encode() in command or any(link.readlink().is_relative_to(folder) for link in (process / "fd").iterdir())
            if users and _is_rays((process / "exe").readlink(), command):
                found.add(int(process.name))
    return found - {os.getpid()}


def _is_rays(program: Path, command: bytes) -> bool:
    """It runs this Python, or what came with Ray; or it is a shell that is about to."""
    return program == _PYTHON or program.is_relative_to(_RAY.resolve()) or bytes(_RAY) in command

"""Deploy `serve.yaml` from this process: onto a private local Ray cluster, or onto one that is running.

Stopping undoes what starting did and nothing else. A private cluster starts no dashboard and keeps Ray's own noise in its log files.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.api import serve_start
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ServeDeploySchema

from deployments.app import APP_NAME
from deployments.config import FRONT_DOOR, AppConfig, FrontDoorSettings
from deployments.document import check_deployments, read_document
from deployments.scaling_config import FrontDoorTuning, violations
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable

ROOT = Path(__file__).resolve().parent.parent
STAGED_CONFIG = ROOT / "serve.yaml"
FUSED_CONFIG = ROOT / "serve-fused.yaml"

READY_WITHIN_S = 180.0
_ASK_EVERY_S = 0.1
_ASK_TIMEOUT_S = 5.0
_OBJECT_STORE_BYTES = 128 * 1024 * 1024  # chunks travel as messages, not as objects
_LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What differs from the file.

    Attributes:
        grpc_port: the front door's port; 0 takes a free one, None keeps the file's.
        metrics_port: the same for its metrics.
        fused: without a file, take the fused one.
        address: a running Ray cluster to deploy onto (`auto`, or `host:port`), as `serve deploy` would, so that applications deployed
            from another file go; None starts a private one.
        dashboard: start Ray's dashboard with the private cluster.
        args: merged over the application's `args`, mappings key by key.
        deployments: by deployment name, merged over its block.
        env: for the replicas, merged over `runtime_env.env_vars`.
        scaling: merged over the scaling settings in the front door's `user_config`; None takes the policy away, which leaves Ray's own.
    """

    grpc_port: int | None = None
    metrics_port: int | None = None
    fused: bool = False
    address: str | None = None
    dashboard: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    scaling: Mapping[str, Any] | None = field(default_factory=dict)


class RunningApp:
    """A deployed application. Use as a context manager, or call `stop`.

    Attributes:
        address, metrics_address: `host:port` of the front door.
        private_folder: where a private cluster keeps its files; None on a cluster that was joined.
    """

    def __init__(self, address: str, metrics_address: str, private_folder: Path | None) -> None:
        self.address = address
        self.metrics_address = metrics_address
        self.private_folder = private_folder
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Drain, and stop what was started: the application, and the private cluster under it. Calling it again does nothing."""
        if not self._stopped:
            self._stopped = True
            _stop(self.private_folder, in_order=True)


def start_local(config_path: Path | None = None, overrides: Overrides | None = None) -> RunningApp:
    """Deploy and wait until every stage answers.

    Raises:
        InvalidRequest: the file or an override is wrong.
        OSError: a port is taken.
        RuntimeError: this process uses Ray already.
        StageUnavailable: the application did not start.
    """
    overrides = overrides or Overrides()
    document, config = load(config_path or (FUSED_CONFIG if overrides.fused else STAGED_CONFIG), overrides)
    if overrides.address is None:
        _check_free(config.front_door.host, config.front_door.port)
        _check_free(config.front_door.metrics_host, config.front_door.metrics_port)
    if ray.is_initialized():
        raise RuntimeError("this process is connected to a Ray cluster already; start_local needs a process without one")
    folder = None if overrides.address is not None else Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        with _signals_held():  # an interrupted start would leave processes that Ray has lost sight of
            _in_lasting_thread(lambda: _start_ray(overrides, folder))
            client = serve_start(proxy_location="Disabled")
        client.deploy_apps(ServeDeploySchema.model_validate(document))
        _wait_until_ready(config.front_door)
    except BaseException:
        _stop(folder, in_order=False)
        raise
    door = config.front_door
    return RunningApp(f"{door.host}:{door.port}", f"{door.metrics_host}:{door.metrics_port}", folder)


def load(path: Path, overrides: Overrides) -> tuple[dict[str, Any], AppConfig]:
    """The deploy document with the overrides in it, and the application's arguments, checked.

    Raises:
        InvalidRequest: naming the key, what it must be and what it is.
    """
    document = read_document(path)
    applications = document["applications"]
    if [app.get("name") for app in applications] != [APP_NAME]:
        raise _invalid("applications", f"must be one application named {APP_NAME!r}; got {[app.get('name') for app in applications]}")
    app = applications[0]
    app["args"] = _arguments(app.get("args") or {}, overrides)
    try:
        config = AppConfig.model_validate(app["args"])
    except ValidationError as error:
        raise InvalidRequest(violations("args", error)) from None
    if overrides.fused and config.mode != "fused":
        raise _invalid("args.mode", f"must be 'fused' when a fused application is asked for; {path} has {config.mode!r}")
    runtime_env = app.setdefault("runtime_env", {})
    runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **overrides.env}
    check_deployments(app.get("deployments") or [], config.mode)
    blocks = {block["name"]: block for block in app.get("deployments") or []}
    for name, block in overrides.deployments.items():
        if name not in blocks:
            raise _invalid("deployments", f"must be among: {', '.join(sorted(blocks))}; got {name!r}")
        blocks[name].update(block)
    _tune(app, blocks.get(FRONT_DOOR, {}), overrides)
    return document, config


def _tune(app: dict[str, Any], door: dict[str, Any], overrides: Overrides) -> None:
    """The front door's `user_config`, checked here: a replica that is told of a wrong one would only log it."""
    if overrides.scaling is None:
        app.pop("autoscaling_policy", None)
    if overrides.scaling:
        door["user_config"] = _merged(door.get("user_config") or {}, {"scaling": overrides.scaling})
    try:
        FrontDoorTuning.model_validate(door.get("user_config") or {})
    except ValidationError as error:
        raise InvalidRequest(violations(f"deployments.{FRONT_DOOR}.user_config", error)) from None


def _arguments(args: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    merged = _merged(args, overrides.args)
    if not isinstance(front_door := merged.get("front_door") or {}, Mapping):
        return merged  # which the check refuses
    front_door = dict(front_door)
    for key, port in (("port", overrides.grpc_port), ("metrics_port", overrides.metrics_port)):
        if port is not None:
            front_door[key] = port
        if front_door.get(key) == 0:  # a replica that replaces another must come back on the same port
            front_door[key] = free_port()
    if overrides.address is None:
        merged["link_host"] = merged.get("link_host") or _LOOPBACK
    return {**merged, "front_door": front_door}


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _start_ray(overrides: Overrides, private_folder: Path | None) -> None:
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if private_folder is None:
        ray.init(address=overrides.address, log_to_driver=False, logging_level=logging.ERROR)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=max(2, os.cpu_count() or 2),
        include_dashboard=overrides.dashboard,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(private_folder),
        _system_config={"worker_niceness": 0},  # the default lets any other process of the machine go first
    )


def _stop(private_folder: Path | None, *, in_order: bool) -> None:
    """In order means that the application is deleted first, so that front doors drain. A private cluster that never served needs none."""
    if ray.is_initialized() and (in_order or private_folder is None):
        try:
            serve.delete(APP_NAME)
        except (RayError, RayServeException) as error:
            log.warning("the application did not stop in order: %s", error)
    with _signals_held():
        ray.shutdown()
        if private_folder is not None:
            _kill_users_of(private_folder)
            shutil.rmtree(private_folder, ignore_errors=True)


def _kill_users_of(folder: Path) -> None:
    """Ray loses sight of processes whose start was interrupted; their log files are open in the cluster's folder."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # gone since it was listed, or not ours to look at
            pid = int(link.parts[2])
            if pid != os.getpid() and link.readlink().is_relative_to(folder):
                os.kill(pid, signal.SIGKILL)


def _in_lasting_thread(start: Callable[[], None]) -> None:
    """Run `start` in a thread that never ends.

    In the main thread Ray would put its own SIGTERM handler in place of ours. And the kernel kills what a thread has
    started as soon as that thread, not the process, ends: Ray asks for it so that no child outlives its driver.
    """
    started: Future[None] = Future()

    def run() -> None:
        try:
            start()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            started.set_exception(error)
        else:
            started.set_result(None)
            threading.Event().wait()

    threading.Thread(target=run, name="ray-start", daemon=True).start()
    started.result()


@contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM that come meanwhile are delivered afterwards, to the handlers there were before."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread alone
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda told, _: held.append(told)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


def _wait_until_ready(door: FrontDoorSettings) -> None:
    """No handle is used: its background thread would outlive the cluster in this process."""
    deadline = time.monotonic() + READY_WITHIN_S
    state = "not deployed"
    while time.monotonic() < deadline:
        app = serve.status().applications.get(APP_NAME)
        if app is not None:
            state = app.status.value
            if state == "DEPLOY_FAILED":
                reasons = [f"{name}: {d.message.strip().splitlines()[-1]}" for name, d in app.deployments.items() if d.message.strip()]
                raise StageUnavailable(f"the application did not start: {app.message} {'; '.join(reasons)}")
            if state == "RUNNING" and _serving(door):
                return
        time.sleep(_ASK_EVERY_S)
    raise StageUnavailable(f"the application did not start within {READY_WITHIN_S:g} s; it is {state}")


def _serving(door: FrontDoorSettings) -> bool:
    """What `grpc.health.v1` says. With TLS only that the port is open: this process need not trust the certificate."""
    if door.tls is not None:
        with socket.socket() as probe:
            return probe.connect_ex((door.host, door.port)) == 0
    with grpc.insecure_channel(f"{door.host}:{door.port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_ASK_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _check_free(host: str, port: int) -> None:
    """Front doors share their port, so one that another server's front doors hold already would be shared with them, silently."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"{host}:{port} cannot be listened on: {os.strerror(error.errno or 0)}") from None


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _invalid(field_path: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field_path, sentence),))

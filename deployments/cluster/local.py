"""Deploy `serve.yaml` from this process: onto a private local Ray cluster, or onto one that is running.

Stopping undoes what starting did and nothing else. A private cluster starts no dashboard and keeps Ray's own noise in its log files.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.api import serve_start
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ServeDeploySchema

from deployments.cluster.health import serving
from deployments.cluster.ports import HeldPorts
from deployments.cluster.private_ray import PrivateRay, has_token, in_thread_of_its_own, signals_held
from deployments.cluster.readiness import Tell, app_state, wait_until_ready
from deployments.config.addresses import is_loopback, joined
from deployments.config.application import AppConfig
from deployments.config.document import check_deployments, read_document
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.config.problems import violations
from deployments.config.tuning import FrontDoorTuning
from model_core.errors import FieldViolation, InvalidRequest

ROOT = Path(__file__).resolve().parent.parent.parent
STAGED_CONFIG = ROOT / "serve.yaml"
FUSED_CONFIG = ROOT / "serve-fused.yaml"

BUILDER = "deployments.app:build"
_MESSAGE_BYTES = "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"

READY_WITHIN_S = 600.0
_LOOPBACK = "127.0.0.1"
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")  # see ip(7)
_ABOVE_RAYS = 20_000  # workers of Ray take those below

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What differs from the file.

    Attributes:
        grpc_port: the front door's port; 0 takes a free one, None keeps the file's.
        metrics_port: the same for its metrics.
        http_port: the same for HTTP, where the file has it on; None takes a free one where `grpc_port` is 0.
        fused: without a file, take the fused one.
        address: a running Ray cluster to deploy onto (`auto`, or `host:port`), as `serve deploy` would, so that applications deployed
            from another file go; None starts a private one.
        dashboard: start Ray's dashboard with the private cluster.
        args: merged over the application's `args`, mappings key by key.
        state_url, artifacts_folder: where the database and the files of jobs are, if neither the file nor `args` says so.
        deployments: by deployment name, merged over its block.
        env: for the replicas, merged over `runtime_env.env_vars`.
        scaling: merged over the scaling settings in the front door's `user_config`; None takes the policy away, which leaves Ray's own.
        ready_within_s: how long every stage may take to answer.
    """

    grpc_port: int | None = None
    metrics_port: int | None = None
    http_port: int | None = None
    fused: bool = False
    address: str | None = None
    dashboard: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    state_url: str = ""
    artifacts_folder: str = ""
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    scaling: Mapping[str, Any] | None = field(default_factory=dict)
    ready_within_s: float = READY_WITHIN_S


class RunningApp:
    """A deployed application. Use as a context manager, or call `stop`.

    Attributes:
        address, metrics_address: `host:port` of the front door.
        http_url: of its HTTP door, without a slash at the end; empty where it has none.
        private_folder: where a private cluster keeps its files; None on a cluster that was joined.
    """

    def __init__(self, config: AppConfig, private: PrivateRay | None, ports: HeldPorts) -> None:
        door = config.front_door
        self._config = config
        self.address = joined(door.host, door.port)
        self.metrics_address = joined(door.metrics_host, door.metrics_port)
        self.http_url = door.http.url
        self.private_folder = None if private is None else private.folder
        self._private = private
        self._ports = ports
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serving(self) -> bool:
        """Whether callers are served now. It asks, and takes its time."""
        return serving(self._config)

    def stop(self) -> None:
        """Drain, and stop what was started: the application, and the private cluster under it. A second call does nothing.

        Interrupted while it drains, it stops the cluster at once.
        """
        if not self._stopped:
            self._stopped = True
            try:
                _delete_app()
            finally:
                _stop_cluster(self._private)
                self._ports.release()


def start_local(config_path: Path | None = None, overrides: Overrides | None = None, tell: Tell = log.info) -> RunningApp:
    """Deploy and wait until every stage answers.

    Args:
        tell: is given a line for each step, and what is waited for.

    Raises:
        InvalidRequest: the file or an override is wrong.
        OSError: a port is taken.
        RuntimeError: this process uses Ray already.
        StageUnavailable: the application did not start; a private cluster's logs are kept, and `tell` has said where.
    """
    overrides = overrides or Overrides()
    document, config = load(config_path or (FUSED_CONFIG if overrides.fused else STAGED_CONFIG), overrides)
    if ray.is_initialized():
        raise RuntimeError("this process is connected to a Ray cluster already; start_local needs a process without one")
    ports = HeldPorts()
    private: PrivateRay | None = None
    try:
        if overrides.address is None:
            _check_private(config)
            ports.take(config.front_door.host, config.front_door.port)
            ports.take(config.front_door.metrics_host, config.front_door.metrics_port)
            if config.front_door.http.port is not None:
                ports.take(config.front_door.http.host, config.front_door.http.port)
            private = PrivateRay()
            tell(f"Ray is starting; its logs are in {private.logs}")
        _deploy(document, config, overrides, private, tell)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        if private is None:
            _delete_app()
        kept = _stop_cluster(private, keep_logs=not interrupted)
        if kept is not None:
            tell(f"the logs are kept in {kept}")
        ports.release()
        raise
    return RunningApp(config, private, ports)


def _deploy(document: dict[str, Any], config: AppConfig, overrides: Overrides, private: PrivateRay | None, tell: Tell) -> None:
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if private is not None:
        url = private.start(dashboard=overrides.dashboard)
        if url:
            tell(f"dashboard at {url}; `ray get-auth-token` prints the token that it asks for")
    else:
        in_thread_of_its_own(lambda: ray.init(address=overrides.address, log_to_driver=False, logging_level=logging.ERROR))
    tell("Serve is starting")
    client = serve_start(proxy_location="Disabled")
    client.deploy_apps(ServeDeploySchema.model_validate(document))
    # No handle is used: its background thread would outlive the cluster in this process.
    look = lambda: app_state(serve.status().applications.get(APP_NAME))  # noqa: E731 - named, it reads as what it is
    wait_until_ready(look, lambda: serving(config), overrides.ready_within_s, tell)


def _check_private(config: AppConfig) -> None:
    """Ray's own ports are open to every interface whatever the address of ours, and take code from whoever has the token.

    The front door reads its TLS files on this machine, and the master secret in this environment.
    """
    door, identity = config.front_door, config.identity
    for key, host in door.hosts().items():
        if not is_loopback(host) and not has_token():
            mode = os.environ["RAY_AUTH_MODE"]
            raise _invalid(f"args.{key}", f"must be a loopback address unless RAY_AUTH_MODE is token; got {host!r} and {mode!r}")
    for where, tls in (("tls", door.tls), ("http.tls", door.http.tls)):
        for name, path in () if tls is None else tls:
            if not os.access(path, os.R_OK):
                raise _invalid(f"args.front_door.{where}.{name}", f"must be a file that can be read; got {path!r}")
    clients = identity.certificates
    if clients is not None and not os.access(clients.ca_file, os.R_OK):
        raise _invalid("args.identity.certificates.ca_file", f"must be a file that can be read; got {clients.ca_file!r}")
    if identity.keys == "required" and not os.environ.get(identity.master_variable):
        wanted = "must name a variable of this environment that holds the master secret"
        raise _invalid("args.identity.master_variable", f"{wanted}; {identity.master_variable} is not set")


def _delete_app() -> None:
    """Front doors drain as the application is deleted."""
    if ray.is_initialized():
        try:
            serve.delete(APP_NAME)
        except (RayError, RayServeException) as error:
            log.warning("the application did not stop in order: %s", error)


def _stop_cluster(private: PrivateRay | None, *, keep_logs: bool = False) -> Path | None:
    """End a private cluster, or leave the one that was joined. Returns where logs are kept, if any are."""
    if private is not None:
        return private.stop(keep_logs=keep_logs)
    with signals_held():
        ray.shutdown()
    return None


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
    if app["import_path"] != BUILDER:
        raise _invalid("applications.0.import_path", f"must be {BUILDER!r}; got {app['import_path']!r}")
    app["args"] = _arguments(app.get("args") or {}, overrides)
    try:
        config = AppConfig.model_validate(app["args"])
    except ValidationError as error:
        raise InvalidRequest(violations("args", error, AppConfig)) from None
    if overrides.fused and config.mode != "fused":
        raise _invalid("args.mode", f"must be 'fused' when a fused application is asked for; {path} has {config.mode!r}")
    runtime_env = app.setdefault("runtime_env", {})
    variables = runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **overrides.env}
    if (told := variables.get(_MESSAGE_BYTES, "")) not in ("", str(config.stage_message_bytes)):
        wanted = f"must be args.stage_message_bytes, {str(config.stage_message_bytes)!r}"
        raise _invalid(f"applications.0.runtime_env.env_vars.{_MESSAGE_BYTES}", f"{wanted}; got {told!r}")
    check_deployments(app.get("deployments") or [], config.mode, enhances=config.enhancer is not None)
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
        raise InvalidRequest(violations(f"deployments.{FRONT_DOOR}.user_config", error, FrontDoorTuning)) from None


def _arguments(args: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    merged = _merged(args, overrides.args)
    given = merged.get("front_door")
    if not isinstance(given, Mapping | None):
        return merged  # which the check refuses
    front_door = dict(given or {})
    for key, port in (("port", overrides.grpc_port), ("metrics_port", overrides.metrics_port)):
        if port is not None:
            front_door[key] = port
        if front_door.get(key) == 0:  # a replica that replaces another must come back on the same port
            front_door[key] = free_port()
    front_door.update(_http(front_door.get("http"), overrides))
    if overrides.address is None:
        merged["link_host"] = _LOOPBACK if merged.get("link_host") in (None, "") else merged["link_host"]
    return {**merged, "front_door": front_door, **_kept(merged, overrides)}


def _kept(args: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Where the database and the files of jobs are, as far as `args` leave it open."""
    state, artifacts = args.get("state") or {}, args.get("artifacts") or {}
    if not isinstance(state, Mapping) or not isinstance(artifacts, Mapping):
        return {}  # which the check refuses
    kept: dict[str, Any] = {}
    if overrides.state_url and not state.get("url"):
        kept["state"] = {**state, "url": overrides.state_url}
    if overrides.artifacts_folder and not artifacts.get("folder") and not artifacts.get("s3"):
        kept["artifacts"] = {**artifacts, "folder": overrides.artifacts_folder}
    return kept


def _http(given: object, overrides: Overrides) -> dict[str, Any]:
    """The HTTP door with its port. One that the file leaves out is taken in where a port is asked for."""
    if not isinstance(given, Mapping | None):
        return {}  # which the check refuses
    http = dict(given or {})
    if overrides.http_port is not None:
        http["port"] = overrides.http_port
    elif overrides.grpc_port == 0 and http.get("port") is not None:
        http["port"] = 0
    if http.get("port") == 0:
        http["port"] = free_port()
    return {"http": http} if http else {}


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now, and that neither the kernel nor Ray gives to whoever wants any port.

    So it is still free when it is used a while later.

    Raises:
        OSError: none is found.
    """
    try:
        end = int(_EPHEMERAL.read_text("utf-8").split()[0])
    except FileNotFoundError:  # another kernel than Linux
        end = 0
    chosen = random.SystemRandom().sample(range(_ABOVE_RAYS, end), 32) if end > _ABOVE_RAYS + 1000 else [0]
    for port in chosen:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((_LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise OSError(errno.EADDRINUSE, f"none of {len(chosen)} ports from {_ABOVE_RAYS} to {end} is free")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _invalid(field_path: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field_path, sentence),))

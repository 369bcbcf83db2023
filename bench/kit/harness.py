"""The application on a cluster whose parts can be broken, and what a bench asks it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import ray
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ServeDeploySchema

from autoscaling.reports import FrontDoorReport, ReplicaReport
from bench.kit.nodes import LocalNodes, Node
from bench.kit.redis import Redis
from deployments.cluster.local import ROOT, STAGED_CONFIG, Overrides, RunningApp, free_port, load, start_local
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.links.remote import reports
from headrace.client import HeadraceClient
from model_core.presets import millrace_64

DEPLOYMENTS = ("TextEncoder", "Denoiser", "Decoder", "FrontDoor")
_ASK_WITHIN_S = 5.0
_WHOLE_WITHIN_S = 120.0


class FaultCluster:
    """Two front doors on the head, two replicas of each stage on as many worker nodes. Use as a context manager.

    Args:
        args: of the application, over those that every fault needs.
    """

    def __init__(self, nodes: LocalNodes, fps: int, sessions: int, args: Mapping[str, Any] | None = None) -> None:
        self.nodes = nodes
        self.sessions = sessions
        self.config = replace(millrace_64(), fps=fps)
        self._fps = fps
        self._args = args or {}
        self._version = 0
        self._ports = (free_port(), free_port())  # the same in every deployment, or Serve would replace the front doors
        self._redis_port = free_port()
        self._redis: Redis | None = None
        self._app: RunningApp | None = None
        self._handles: dict[str, DeploymentHandle[Any]] = {}

    def __enter__(self) -> Self:
        self._redis = Redis(self._redis_port)
        self._top_up()
        self._app = start_local(None, self._overrides())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles.values():
            handle.shutdown()
        ray.shutdown()  # the nodes end with everything on them
        if self._redis is not None:
            self._redis.close()

    @property
    def address(self) -> str:
        if self._app is None:
            raise RuntimeError("enter the cluster first")
        return self._app.address

    def client(self) -> HeadraceClient:
        return HeadraceClient(self.address)

    async def stages(self, deployment: str) -> list[ReplicaReport]:
        """From every replica of a stage that answers now."""
        return await reports(self._handle(deployment), ReplicaReport, _ASK_WITHIN_S)

    async def front_doors(self) -> list[FrontDoorReport]:
        """From every front door that answers now."""
        return await reports(self._handle(FRONT_DOOR), FrontDoorReport, _ASK_WITHIN_S)

    def controller_pid(self) -> int:
        actor: Any = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        pid: Any = ray.get(actor.get_pid.remote())
        return int(pid)

    async def choose_node(self, chance: random.Random) -> tuple[Node, int]:
        """A worker node that sessions run through, and how many."""
        open_links = {node.name: 0 for node in self.nodes.workers}
        for deployment in ("Denoiser", "Decoder"):
            for replica in await self.stages(deployment):
                if replica.process and replica.link:
                    open_links[self.nodes.node_of(replica.process.pid).name] += replica.link.open
        node = chance.choice([n for n in self.nodes.workers if open_links[n.name]] or self.nodes.workers)
        return node, min(self.sessions, open_links[node.name])

    async def until_whole(self) -> None:
        """Wait until two replicas of every deployment answer, and two worker nodes are there."""
        await asyncio.to_thread(self._top_up)
        deadline = time.monotonic() + _WHOLE_WITHIN_S
        while True:
            missing = [d for d in DEPLOYMENTS if await self._answering(d) != 2]
            if not missing and self._settled():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not whole within {_WHOLE_WITHIN_S:g} s: {missing} {serve.status().applications[APP_NAME]}")
            await asyncio.sleep(0.3)

    def redeploy_stages(self) -> None:
        """Deploy again with something changed in every stage, so that Serve replaces their replicas one after the other."""
        self._version += 1
        document, _ = load(STAGED_CONFIG, self._overrides())
        serve_start(proxy_location="Disabled").deploy_apps(ServeDeploySchema.model_validate(document))

    def _handle(self, deployment: str) -> DeploymentHandle[Any]:
        if deployment not in self._handles:
            self._handles[deployment] = serve.get_deployment_handle(deployment, APP_NAME)
        return self._handles[deployment]

    async def _answering(self, deployment: str) -> int:
        """How many replicas do."""
        try:
            return len(await (self.front_doors() if deployment == FRONT_DOOR else self.stages(deployment)))
        except Exception:  # noqa: BLE001 - whatever it is, it is not whole
            return 0

    def _settled(self) -> bool:
        app = serve.status().applications[APP_NAME]
        return app.status.value == "RUNNING" and all(d.replica_states == {"RUNNING": 2} for d in app.deployments.values())

    def _top_up(self) -> None:
        while len(self.nodes.workers) < 2:
            self.nodes.add()

    def _overrides(self) -> Overrides:
        stage = {
            "autoscaling_config": None, "num_replicas": 2, "max_replicas_per_node": 1,
            "ray_actor_options": {"num_cpus": 0, "resources": {"stage": 1 + self._version}},
        }  # fmt: skip
        door = {"autoscaling_config": None, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0, "resources": {"door": 1}}}
        store = {"url": f"redis://127.0.0.1:{self._redis_port}/0"}
        front_door = {"http": {"port": None}}
        arguments = {"fps": self._fps, "admission": {"mode": "none"}, "session_store": store, "front_door": front_door, **self._args}
        return Overrides(
            grpc_port=self._ports[0], metrics_port=self._ports[1], address=self.nodes.address, args=arguments,
            deployments={**dict.fromkeys(DEPLOYMENTS, stage), "FrontDoor": door}, env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

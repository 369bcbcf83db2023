"""What happened on a fake cloud while an application ran on it, as seconds since a beginning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ray import serve
from ray.serve._private.common import ReplicaState

from bench.kit.nodes import descendants
from deployments.config.names import APP_NAME
from model_core.tasks import cancel_and_wait
from tests.cluster.cloud import Cloud

STAGES = ("Denoiser", "Decoder")
_EVERY_S = 0.5


def running(deployment: str) -> int:
    """Replicas of a deployment that run now."""
    app = serve.status().applications[APP_NAME]
    return app.deployments[deployment].replica_states.get(ReplicaState.RUNNING, 0)


def places(cloud: Cloud, pids: set[int]) -> set[str]:
    """Nodes that these processes run on."""
    return {node.node for node in cloud.nodes() for pid in node.pids if pids & {pid, *descendants(pid)}}


@dataclass
class Timeline:
    """Use `record` around what is to be recorded, `note` for what only the caller knows.

    Attributes:
        began: seconds since the epoch.
        most_nodes: that there were at once.
    """

    began: float = field(default_factory=time.time)
    entries: list[tuple[float, str]] = field(default_factory=list)
    most_nodes: int = 0

    def begin(self) -> None:
        """Time counts from here."""
        self.began = time.time()

    def note(self, what: str) -> None:
        self.entries.append((time.time() - self.began, what))

    @asynccontextmanager
    async def record(self, cloud: Cloud) -> AsyncGenerator[None, None]:
        seen = len(cloud.events())
        watching = asyncio.create_task(self._watch(cloud))
        try:
            yield
        finally:
            await cancel_and_wait(watching)
            events = cloud.events()[seen:]
            first = {(event.event, event.node_type): event for event in reversed(events)}
            for event in events:
                if event.event != "refused" or first["refused", event.node_type] is event:
                    self.entries.append((event.at - self.began, f"{event.node_type} node {event.event}"))
            for kind, node_type in first:
                if kind == "refused":
                    count = sum((event.event, event.node_type) == (kind, node_type) for event in events)
                    self.entries.append((events[-1].at - self.began, f"{node_type} refused {count} times in all"))

    def text(self, title: str) -> str:
        lines = [f"  {at:6.1f} s  {what}" for at, what in sorted(self.entries)]
        return "\n".join(["", title, *lines])

    async def _watch(self, cloud: Cloud) -> None:
        before: dict[str, int] = {}
        while True:
            self.most_nodes = max(self.most_nodes, len(cloud.nodes()))
            counts = {stage: await asyncio.to_thread(running, stage) for stage in STAGES}
            for stage, count in counts.items():
                if count != before.get(stage, count):
                    self.note(f"{stage} {before[stage]} -> {count} replicas")
            before = counts
            await asyncio.sleep(_EVERY_S)


async def until(condition: Callable[[], bool], what: str, within_s: float) -> None:
    """Wait; the bound is patience only, so that a failing test ends.

    Raises:
        TimeoutError: naming `what` was waited for.
    """
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {within_s:g} s not seen: {what}")
        await asyncio.sleep(_EVERY_S / 2)

"""The router of legs and prompts without Serve around it, and replicas for it to choose among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from deployments.links.routing import AskingRouter, RoutingReport

OURS, THEIRS = "0123", "4567"  # numerics


@dataclass(eq=False)
class StubReplica:
    """What the router looks at. `busy` sessions are on it; it serves `sessions`. `numerics` are those of `stage`."""

    replica_id: str
    numerics: str
    busy: int = 0
    sessions: int | None = 4
    node_id: str = "n"
    max_ongoing_requests: int = 8
    stage: str = "denoiser"
    routing_stats: dict[str, Any] = field(init=False)

    @property
    def actor_id(self) -> bytes:
        return self.replica_id.encode()

    def __post_init__(self) -> None:
        self.routing_stats = RoutingReport({self.stage: self.numerics}, self.sessions).flatten()


class StubRouter(AskingRouter):
    """Without Serve around it."""

    def __init__(self, replicas: Sequence[StubReplica]) -> None:
        self._replicas = {cast("Any", replica.replica_id): cast("Any", replica) for replica in replicas}

    async def _probe_queue_lens(self, replicas: Any, backoff_index: int) -> Any:
        return [(replica, replica.busy) for replica in replicas]


async def chosen(replicas: Sequence[StubReplica], *arguments: object) -> str | None:
    """Whom the router takes for a call with these arguments, asked as Serve asks it: group after group."""
    router = StubRouter(replicas)
    for group in await router.choose_replicas(cast("Any", list(replicas)), cast("Any", SimpleNamespace(args=list(arguments)))):
        if (replica := await router._select_from_candidate_replicas(group, 0)) is not None:  # noqa: SLF001 - what Serve calls
            return str(replica.replica_id)
    return None

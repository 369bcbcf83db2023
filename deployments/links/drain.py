"""How a stage replica learns that Serve is about to stop it.

Serve 2.60 tells user code nothing before its streams have ended or its grace is over. But a replica that is to stop first leaves the
set of replicas that Serve routes to, and Serve publishes that set to whoever polls the controller; handles learn it the same way. So a
replica watches for its own name to go. The poll is Serve's private interface: only `ServeTargets` below knows it, and a test on a real
cluster drains a replica by it. Were it to stop working, a drain would be what a crash is: correct, but with a longer gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import ray
from ray import serve
from ray.serve._private.common import DeploymentTargetInfo
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace

# Handles hear of a change when the replica does, give or take this long; before that they might send a session back.
SETTLE_S = 0.2


class Targets(Protocol):
    """Something that tells the replicas that are routed to, now and after each change, until `stop`."""

    @property
    def running(self) -> bool:
        """False when it has given up; a new one is needed."""
        ...

    def stop(self) -> None: ...


Watch = Callable[[Callable[[frozenset[str]], None]], Targets]


def must_hand_over(own: str, seen: bool, targets: frozenset[str]) -> bool:
    """Whether replica `own`, which has been `seen` among the targets before, is to give its sessions away.

    Not while there is nobody to give them to: then they are better off here, until a successor comes or Serve's grace is over.
    """
    return seen and own not in targets and bool(targets)


class DrainWatch:
    """Calls `hand_over(True)` once sessions are to go elsewhere, and `hand_over(False)` should the replica be routed to again.

    Args:
        own: this replica's name among the targets.
        watch: starts to watch the targets; its callback comes on the event loop.
        hand_over: see above.
        settle_s: how long to wait before the first call, for handles to have heard too.
    """

    def __init__(self, own: str, watch: Watch, hand_over: Callable[[bool], None], settle_s: float = SETTLE_S) -> None:
        self._own = own
        self._watch = watch
        self._hand_over = hand_over
        self._settle_s = settle_s
        self._seen = False
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None
        self._targets: Targets | None = None

    def start(self) -> None:
        """Watch from now on; does nothing while it does. Call it on the event loop."""
        if self._targets is None or not self._targets.running:
            self._targets = self._watch(self._changed)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._targets is not None:
            self._targets.stop()

    def _changed(self, targets: frozenset[str]) -> None:
        leaving = must_hand_over(self._own, self._seen, targets)
        self._seen = self._seen or self._own in targets
        if leaving == self._leaving:
            return
        self._leaving = leaving
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._settle_s if leaving else 0.0, self._hand_over, leaving)


class ServeTargets:
    """The replicas of this replica's deployment that Serve routes to."""

    def __init__(self, changed: Callable[[frozenset[str]], None]) -> None:
        replica = serve.get_replica_context().replica_id

        def update(info: DeploymentTargetInfo) -> None:
            changed(frozenset(target.replica_id.unique_id for target in info.running_replicas))

        listeners: Any = {(LongPollNamespace.DEPLOYMENT_TARGETS, replica.deployment_id): update}
        self._client = LongPollClient(
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE),
            listeners,
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=f"drain:{replica.unique_id}",
        )

    @property
    def running(self) -> bool:
        return bool(self._client.is_running)

    def stop(self) -> None:
        self._client.stop()


def watch_serve(hand_over: Callable[[bool], None]) -> DrainWatch:
    """A watch for the replica that this process is."""
    return DrainWatch(serve.get_replica_context().replica_tag, ServeTargets, hand_over)

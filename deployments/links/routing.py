"""How Serve chooses a replica for a leg.

Replicas that Serve would stop last are filled first, as far as they measure themselves able to. When the policy then asks for fewer, those
that go are empty or nearly so, and few sessions have to be handed over. Where nobody scales the replicas, they share the sessions evenly:
full ones would only be slower. A caller may name replicas that have just failed it: they are taken only if there is no other.

Before that counts how replicas round. A session that goes on where another device would give other bits shows other frames than it would
have shown (docs/adr/0001), so replicas that round as the one before are asked first, and taken as long as one of them has room. The same
holds for a session's further prompts, and for those that are embedded again when it is resumed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve.context import ReplicaContext

from deployments.links.wishes import Avoid, Only
from model_core.types import Numerics, SessionContext

# Replicas asked for one leg: all of them in a small deployment, a sample of a large one.
_ASKED = 8
# Beyond this share of what it can serve, a replica counts as full while another has room.
_FULL = 0.85


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """What a replica reports to the routers, which Serve carries as a dictionary.

    Attributes:
        numerics: how each of its stages rounds; see `model_core.types.Numerics`.
        sessions: how many it serves in real time; None where it does not know, and where no replica has to be empty one day.
    """

    numerics: Mapping[str, str] = field(default_factory=dict)
    sessions: int | None = None

    def flatten(self) -> dict[str, Any]:
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> RoutingReport:
        """From what `flatten` made, also in a replica of another version: what it does not report is unknown."""
        return cls(**{each.name: told[each.name] for each in fields(cls) if each.name in told})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that answered.

    Attributes:
        busy: sessions on it, or on their way to it.
        sessions: that it serves in real time; None where it does not say.
        place: 0 for the one that Serve would stop last.
    """

    busy: int
    sessions: int | None
    place: int

    @property
    def has_room(self) -> bool:
        return self.sessions is not None and self.busy + 1 <= max(1.0, _FULL * self.sessions)

    @property
    def is_full(self) -> bool:
        """As far as it says what it can serve."""
        return self.sessions is not None and not self.has_room

    @property
    def load(self) -> float:
        return self.busy / max(1, self.sessions or 1)


def may_shrink(replica: ReplicaContext) -> bool:
    """Whether replicas of its deployment may be stopped because there is little to do."""
    scaling = replica._deployment_config.autoscaling_config  # noqa: SLF001 - Serve tells it nowhere else
    return scaling is not None and scaling.min_replicas < scaling.max_replicas


def avoided(arguments: Sequence[object]) -> frozenset[str]:
    """The actors that a call's arguments say are to be avoided."""
    return frozenset().union(*(argument.actors for argument in arguments if isinstance(argument, Avoid)))


def meant(arguments: Sequence[object]) -> str:
    """The actor that a call's arguments say it is for; empty for whichever."""
    return next((argument.actor for argument in arguments if isinstance(argument, Only)), "")


def preferred(candidates: Sequence[Candidate]) -> int | None:
    """Index of the one to take: of those with room, the one that is stopped last; without any, the least loaded."""
    if not candidates:
        return None
    indices = range(len(candidates))
    if roomy := [n for n in indices if candidates[n].has_room]:
        return min(roomy, key=lambda n: candidates[n].place)
    return min(indices, key=lambda n: (candidates[n].load, candidates[n].place))


def rounds_alike(told: Mapping[str, str] | None, wanted: Numerics | None) -> bool:
    """Whether a replica, by what is `told` of each of its stages, gives a session of `wanted` numerics the bits that it had before.

    Stages of which nothing is wanted do not count, unless there are no others.
    """
    if not told or wanted is None:
        return False
    known = {stage: digest for stage in told if (digest := getattr(wanted, stage, ""))}
    return bool(known) and all(told[stage] == digest for stage, digest in known.items())


class _Alike(list[RunningReplica]):
    """Those that round as the session's last ones did."""


class AskingRouter(PowerOfTwoChoicesRequestRouter):
    """Asks replicas how busy they are each time, and takes the `preferred` one of those that answer.

    Serve's default goes by what it remembers of them for up to ten seconds, and so keeps sending sessions to a replica that was cut
    off. Here one that does not answer at once is not chosen. Legs are opened rarely.
    """

    def initialize_state(self, **_: object) -> None:
        """Called by Serve once the router is made."""
        self._use_replica_queue_len_cache = False

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Whom to ask, and whom after that."""
        if not candidate_replicas:
            return []
        arguments = () if pending_request is None else pending_request.args
        if (only := meant(arguments)) and (there := [replica for replica in candidate_replicas if replica.actor_id.hex() == only]):
            return [there]
        avoid = avoided(arguments)
        willing = [replica for replica in candidate_replicas if not avoid or replica.actor_id.hex() not in avoid] or candidate_replicas
        wanted = _wanted(pending_request)
        alike = _Alike(replica for replica in willing if rounds_alike(RoutingReport.parse(replica.routing_stats).numerics, wanted))
        first = [] if len(alike) in {0, len(willing)} else [_Alike(_sample(alike))]
        last = [] if len(willing) == len(candidate_replicas) else [_sample(candidate_replicas)]
        return [*first, _sample(willing), *last]

    async def _select_from_candidate_replicas(self, candidates: list[RunningReplica], backoff_index: int) -> RunningReplica | None:
        answers = await self._probe_queue_lens(candidates, backoff_index)
        free = [(replica, busy) for replica, busy in answers if busy is not None and busy < replica.max_ongoing_requests]
        places = self._places()
        asked = [
            Candidate(busy, RoutingReport.parse(replica.routing_stats).sessions, places.get(replica.replica_id, len(places)))
            for replica, busy in free
        ]
        chosen = preferred(asked)
        if chosen is None or (isinstance(candidates, _Alike) and asked[chosen].is_full):
            return None
        # It may have gone while it was asked; then another is chosen.
        return self._replicas.get(free[chosen][0].replica_id)

    def _places(self) -> dict[object, int]:
        """Serve stops those on the node with the fewest first, of them the newest; it lists them in the order in which they came up."""
        replicas = list(self._replicas.values())
        there = Counter(replica.node_id for replica in replicas)
        order = sorted(range(len(replicas)), key=lambda n: (-there[replicas[n].node_id], n))
        return {replicas[n].replica_id: place for place, n in enumerate(order)}


def _sample(replicas: list[RunningReplica]) -> list[RunningReplica]:
    return random.sample(replicas, min(_ASKED, len(replicas)))


def _wanted(request: PendingRequest | None) -> Numerics | None:
    """What a call says of the stages that it needs: one that opens a leg needs no text stage, and one that embeds a prompt no other."""
    for argument in () if request is None else request.args:
        if isinstance(argument, SessionContext):
            return replace(argument.numerics, text_encoder="")
        if isinstance(argument, Avoid):
            return argument.unlike
    return None

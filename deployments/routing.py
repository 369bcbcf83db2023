"""How Serve chooses a replica for a leg."""

from __future__ import annotations

from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter


class AskingRouter(PowerOfTwoChoicesRequestRouter):
    """The less busy of two replicas, by their own answer.

    Serve's default goes by what it remembers of them for up to ten seconds, and so keeps sending sessions to a replica that was cut
    off. Here both are asked each time, and one that does not answer at once is not chosen. Legs are opened rarely.
    """

    def initialize_state(self, **_: object) -> None:
        """Called by Serve once the router is made."""
        self._use_replica_queue_len_cache = False

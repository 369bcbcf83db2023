"""Sessions of front doors that shut down. They play on there, where nobody new finds them, and then go on at another one."""

from __future__ import annotations

from collections.abc import Iterable

from service.clock import Clock

# The oldest are forgotten beyond that: who asks for one of those looks for it as for any other.
_MOST = 4096


class Moving:
    """What this front door was told of them by the others.

    Args:
        clock: for waits.
        within_s: how long after that a session may take to go on.
    """

    def __init__(self, clock: Clock, within_s: float) -> None:
        self._clock, self._within_s = clock, within_s
        self._until: dict[str, float] = {}  # by the token to watch, the oldest first

    def __contains__(self, token: str) -> bool:
        return self.wait_s(token) > 0

    def expect(self, tokens: Iterable[str]) -> None:
        """The sessions of `tokens` go on elsewhere in a while."""
        until = self._clock.now() + self._within_s
        for token in tokens:
            self._until.pop(token, None)
            self._until[token] = until
        for token in list(self._until)[:-_MOST]:
            del self._until[token]

    def arrived(self, token: str) -> None:
        """It has."""
        self._until.pop(token, None)

    def wait_s(self, token: str) -> float:
        """How long it is worth waiting for a session; 0 for one that is not known to move."""
        return max(0.0, self._until.get(token, 0.0) - self._clock.now())

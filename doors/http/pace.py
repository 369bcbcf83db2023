"""How fast large bodies and messages are read, all of them together, so that live sessions keep the processor.

Whoever has read more than the rate allows reads on later. Meanwhile the kernel's buffers fill, and TCP has the caller wait.
"""

from __future__ import annotations

from service.clock import Clock

_BURST_S = 0.25
# Shorter waits are left to the next one.
LEAST_S = 0.005


class Pace:
    """A bucket of bytes, or of other things, that fills at a rate. One is for all bodies of a front door.

    Args:
        rate: bytes a second. What a quarter of a second brings may be read at once after a pause.
        clock: time.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock.now() - _BURST_S

    def beside(self, rate: float) -> Pace:
        """Another bucket, by the same clock."""
        return Pace(rate, self._clock)

    def take(self, size: int) -> float:
        """Count bytes that were read. Returns after how many seconds more may be read."""
        now = self._clock.now()
        self._due = max(self._due, now - _BURST_S) + size / self._rate
        return max(0.0, self._due - now)

    async def passed(self, size: int) -> float:
        """Count bytes that were read, and return when more may be. Returns how long that took."""
        if self.take(size) < LEAST_S:
            return 0.0
        before = self._clock.now()
        await self._clock.sleep(self._due - before)
        return self._clock.now() - before

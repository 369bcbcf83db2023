"""What a session may use of its tenant's limits, as those see it who run sessions. Knows no database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol


class Allowance:
    """What one session may use. Whoever serves it says what it has used.

    Attributes:
        used_s: seconds of video so far, of this connection.
        fail: ends the session with an error.
    """

    __slots__ = ("fail", "used_s")

    def __init__(self) -> None:
        self.used_s: Callable[[], float] = lambda: 0.0
        self.fail: Callable[[Exception], None] = lambda _: None

    def follow(self, used_s: Callable[[], float], fail: Callable[[Exception], None]) -> None:
        """From now on ask `used_s` what the session has used, and end it with `fail` when there is no more."""
        self.used_s, self.fail = used_s, fail


class Quotas(Protocol):
    def session(self, tenant: str, seconds: float | None) -> AbstractAsyncContextManager[Allowance]:
        """Hold a place and `seconds` of video for a session of `tenant`, None for one without an end, for the length of the context.

        At its end, what the allowance says was used is settled, and the rest is free again.

        Raises:
            QuotaExceeded: a limit is reached.
            StageUnavailable: the database does not answer, and the tenant may have limits.
        """
        ...


class NoQuotas:
    """Nobody has limits, as without a database."""

    @asynccontextmanager
    async def session(self, tenant: str, seconds: float | None) -> AsyncGenerator[Allowance, None]:
        yield Allowance()

"""Sends notices of jobs that ended to callers' webhooks, signed as Standard Webhooks has it, until each was taken or is given up."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Protocol

from standardwebhooks.webhooks import Webhook as Signer

from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait, run_in_thread, unless
from service.clock import Clock
from service.identity.remembered import Remembered
from service.jobs.webhooks.notices import Notice, Places
from service.jobs.webhooks.posting import Post, TargetPolicy, TargetRefused

# From one attempt to the next, in seconds, as Standard Webhooks advises; after the last one a notice is given up.
PAUSES_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0)
_EVERY_S = 1.0
_AT_ONCE = 8
_OF_A_TENANT = 2  # of these, so that hosts which take all of the time hold up nobody else's
_OF_SLOW = 4  # of these, for all tenants together whose hosts took long lately: the others' are quick, so the rest is soon free again
_SLOW_S = 2.0  # an attempt that takes longer makes its tenant slow
_SLOW_FOR_S = 900.0
_MOST_SLOW = 1000  # tenants that are known to be slow
_TIMEOUT_S = 15.0
_LEASE_S = 120.0  # longer than an attempt takes, and its word to the table
_GONE = 410  # the caller wants no more of them
_SILENT_AT_MOST = 5  # attempts in a row that ran out of time; then the endpoint rests
_REST_S = 300.0
_FORGOTTEN_S = 3600.0
_MOST_SILENT = 1000  # endpoints that are known to be silent

log = logging.getLogger(__name__)


class Notices(Protocol):
    """What `service.jobs.webhooks.notices.NoticeTable` is."""

    async def take(self, places: Places, lease_s: float) -> list[Notice]: ...

    async def done(self, notice_id: str) -> None: ...

    async def later(self, notice_id: str, after_s: float) -> None: ...


def headers(notice: Notice, now: float) -> dict[str, str]:
    """Of the POST, with the signature where the caller gave a secret."""
    moment = int(now)
    made = {
        "content-type": "application/json", "user-agent": "Headrace", "webhook-id": notice.id, "webhook-timestamp": str(moment),
    }  # fmt: skip
    if notice.secret:
        made["webhook-signature"] = _signer(notice.secret).sign(notice.id, datetime.fromtimestamp(moment, UTC), notice.body)
    return made


def _signer(secret: str) -> Signer:
    return Signer(secret) if secret.startswith("whsec_") else Signer(secret.encode())


class Rests:
    """Endpoints that let several attempts in a row run out of time are left alone for a while, since each attempt holds a place.

    An endpoint is an address of a tenant's, less its query, which may be another one for each job.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent: Remembered[tuple[str, str], tuple[int, float]] = Remembered(_FORGOTTEN_S, _MOST_SILENT, clock)

    def left_s(self, notice: Notice) -> float:
        """How long its endpoint rests yet; 0 where it does not."""
        _, until = self._silent.get(_endpoint(notice)) or (0, 0.0)
        return max(0.0, until - self._clock.now())

    def heard(self, notice: Notice) -> None:
        """Its endpoint did something, be it a refusal."""
        self._silent.amend(_endpoint(notice), (0, 0.0))

    def silent(self, notice: Notice) -> None:
        """An attempt ran out of time. One more after a rest is enough for the next one."""
        times, until = self._silent.get(_endpoint(notice)) or (0, 0.0)
        if times + 1 >= _SILENT_AT_MOST:
            until = self._clock.now() + _REST_S
        self._silent.put(_endpoint(notice), (times + 1, until))


def _endpoint(notice: Notice) -> tuple[str, str]:
    return notice.tenant, notice.url.partition("?")[0]


class WebhookSender:
    """One front door's.

    Args:
        notices: to be sent.
        policy: where this server posts.
        clock: time.
        now: Unix time.
        counted: told of what became of each attempt: one of `observability.catalogue.DELIVERY`.
    """

    def __init__(
        self,
        notices: Notices,
        policy: TargetPolicy,
        clock: Clock,
        now: Callable[[], float],
        counted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._notices = notices
        self._policy = policy
        self._clock = clock
        self._now = now
        self._counted = counted
        self._rests = Rests(clock)
        self._slow: Remembered[str, bool] = Remembered(_SLOW_FOR_S, _MOST_SLOW, clock)
        # Not those of the event loop, in which live sessions have frames encoded: a host may hold one for as long as an attempt lasts.
        self._threads = ThreadPoolExecutor(_AT_ONCE, "webhook")
        self._woken = asyncio.Event()
        self._sending: dict[asyncio.Task[None], str] = {}

    def wake(self) -> None:
        """There may be a notice."""
        self._woken.set()

    async def run(self) -> None:
        """Send what is due, until cancelled. What is under way then is sent again later. Once only."""
        try:
            while True:
                self._woken.clear()
                taken: list[Notice] = []
                try:
                    if len(self._sending) < _AT_ONCE:
                        taken = await self._notices.take(self._places(), _LEASE_S)
                except StageUnavailable as error:
                    log.info("webhooks wait: %s", error)
                except Exception:
                    log.exception("notices cannot be taken")
                for notice in taken:
                    task = asyncio.create_task(self._deliver(notice))
                    self._sending[task] = notice.tenant
                    task.add_done_callback(self._sent)
                if not taken:
                    await unless(self._woken, self._clock.sleep(_EVERY_S))
        finally:
            await cancel_and_wait(*self._sending)
            self._threads.shutdown(wait=False)  # nothing runs in them any more

    def _places(self) -> Places:
        sending = Counter(self._sending.values())
        slow = frozenset(self._slow.keys())
        return Places(_AT_ONCE - len(self._sending), _OF_A_TENANT, sending, slow, _OF_SLOW)

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a notice cannot be sent", exc_info=error)

    async def _deliver(self, notice: Notice) -> None:
        try:
            await self._try(notice)
        except StageUnavailable as error:
            log.info("notice %s comes again when its lease ends: %s", notice.id, error)

    async def _try(self, notice: Notice) -> None:
        last = notice.attempts > len(PAUSES_S)
        if not last and (rest_s := self._rests.left_s(notice)):
            await self._put_off(notice, rest_s, "its endpoint rests")  # an attempt all the same, or it might never be given up
            return
        began = self._clock.now()
        problem = await self._problem(notice)
        if self._clock.now() - began > _SLOW_S:
            self._slow.put(notice.tenant, True)
        gone = problem == f"answered {_GONE}"
        self._counted("delivered" if problem is None else "gone" if gone else "given_up" if last else "tried")
        if problem is None or gone:
            await self._notices.done(notice.id)
        elif last:
            log.warning("notice %s is given up after %d attempts; the last: %s", notice.id, notice.attempts, problem)
            await self._notices.done(notice.id)
        else:
            await self._put_off(notice, 0.0, problem)

    async def _put_off(self, notice: Notice, at_least_s: float, problem: str) -> None:
        log.info("notice %s: attempt %d: %s", notice.id, notice.attempts, problem)
        await self._notices.later(notice.id, max(PAUSES_S[notice.attempts - 1], at_least_s))

    async def _problem(self, notice: Notice) -> str | None:
        """Why it was not taken; None where it was. The address is the caller's, and may hold a secret, so it is not named."""
        try:
            post = Post(notice.url, headers(notice, self._now()), notice.body.encode(), self._policy, _TIMEOUT_S)
            async with asyncio.timeout(_TIMEOUT_S):
                status = await run_in_thread(post.send, abort=post.abort, threads=self._threads)
        except TargetRefused as error:
            return str(error)
        except TimeoutError as error:
            self._rests.silent(notice)
            return type(error).__name__
        except (OSError, ValueError) as error:
            self._rests.heard(notice)
            return type(error).__name__
        self._rests.heard(notice)
        return None if 200 <= status < 300 else f"answered {status}"

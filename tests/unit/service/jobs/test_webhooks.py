"""Notices of jobs that ended: written with the end, signed, sent again until they are taken, and never told to logs."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection
from standardwebhooks.webhooks import Webhook as Verifier

from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait
from observability.catalogue import DELIVERY
from service.database.engine import Database
from service.database.schema import OUTBOX
from service.jobs.job import Job, JobError, JobStatus, Webhook
from service.jobs.webhooks.notices import KIND, Notice, NoticeTable, NoticeWriter, Places, shares
from service.jobs.webhooks.posting import TargetPolicy
from service.jobs.webhooks.sender import PAUSES_S, Rests, WebhookSender, headers
from service.jobs.work import EndedJob
from tests.fakes import ManualClock, eventually
from tests.unit.service.jobs.test_posting import receiver

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OWN = TargetPolicy((ipaddress.ip_network("127.0.0.0/8"),))
JOB = Job(
    id="abcdefgh0123", tenant="acme", door="own", status=JobStatus.COMPLETED, model="m", prompt="a secret plan", seconds=1.0, seed=1,
    steps=4, width=64, height=64, fps=24, created_at=0.0, updated_at=0.0, ended_at=12.0,
)  # fmt: skip


class FakeNotices:
    """Obeys `Notices`. `away` makes so many calls fail first."""

    def __init__(self, *notices: Notice, away: int = 0) -> None:
        self.waiting = list(notices)
        self.away = away
        self.over: list[str] = []
        self.put_off: list[float] = []
        self.asked: list[tuple[int, int, dict[str, int]]] = []
        self.slow: set[str] = set()

    async def take(self, places: Places, lease_s: float) -> list[Notice]:
        self.asked.append((places.free, places.each, dict(places.sending)))
        self.slow = set(places.slow)
        if self.away:
            self.away -= 1
            raise StageUnavailable("away")
        taken, self.waiting = self.waiting[: places.free], self.waiting[places.free :]
        return taken

    async def done(self, notice_id: str) -> None:
        self.over.append(notice_id)

    async def later(self, notice_id: str, after_s: float) -> None:
        self.put_off.append(after_s)


@asynccontextmanager
async def sending(notices: FakeNotices, policy: TargetPolicy = OWN, counted: list[str] | None = None) -> AsyncGenerator[ManualClock, None]:
    clock, told = ManualClock(), [] if counted is None else counted
    task = asyncio.create_task(WebhookSender(notices, policy, clock, lambda: 1_700_000_000.0, told.append).run())
    try:
        yield clock
    finally:
        await cancel_and_wait(task)


def notice(url: str, attempts: int = 1, secret: str = SECRET) -> Notice:
    return Notice("n1", url, json.dumps({"type": "video.completed"}), attempts, secret)


def test_the_signature_is_what_standard_webhooks_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    made = headers(notice("https://a.example"), time.time())
    assert Verifier(SECRET).verify(notice("https://a.example").body, made) == {"type": "video.completed"}
    plain = headers(notice("https://a.example", secret="as it is"), time.time())  # noqa: S106
    assert Verifier(b"as it is").verify(notice("").body, plain)
    assert "webhook-signature" not in headers(notice("https://a.example", secret=""), time.time())


async def test_what_is_taken_is_sent_once_and_forgotten() -> None:
    with receiver() as (url, got):
        notices = FakeNotices(notice(f"{url}/200"))
        async with sending(notices):
            await eventually(lambda: notices.over == ["n1"])
    [(_, sent, body)] = got
    assert json.loads(body) == {"type": "video.completed"}
    assert sent["webhook-id"] == "n1"
    assert sent["webhook-timestamp"] == "1700000000"


@pytest.mark.parametrize(("status", "attempts", "put_off"), [(500, 1, PAUSES_S[0]), (302, 2, PAUSES_S[1]), (429, 3, PAUSES_S[2])])
async def test_what_is_not_taken_comes_again_later_and_later(status: int, attempts: int, put_off: float) -> None:
    with receiver() as (url, _):
        notices = FakeNotices(notice(f"{url}/{status}", attempts))
        async with sending(notices):
            await eventually(lambda: notices.put_off == [put_off])
    assert notices.over == []
    assert list(PAUSES_S) == sorted(PAUSES_S)


@pytest.mark.parametrize(("status", "attempts"), [(410, 1), (500, len(PAUSES_S) + 1)])
async def test_what_nobody_wants_is_given_up(status: int, attempts: int) -> None:
    with receiver() as (url, _):
        notices = FakeNotices(notice(f"{url}/{status}", attempts))
        async with sending(notices):
            await eventually(lambda: notices.over == ["n1"])


@pytest.mark.parametrize(
    ("status", "attempts", "outcome"),
    [(200, 1, "delivered"), (500, 1, "tried"), (410, 1, "gone"), (500, len(PAUSES_S) + 1, "given_up")],
)
async def test_every_attempt_is_counted_by_what_became_of_it(status: int, attempts: int, outcome: str) -> None:
    counted: list[str] = []
    with receiver() as (url, _):
        notices = FakeNotices(notice(f"{url}/{status}", attempts))
        async with sending(notices, counted=counted):
            await eventually(lambda: bool(notices.over or notices.put_off))
    assert counted == [outcome]
    assert outcome in DELIVERY.values


async def test_neither_the_address_nor_the_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service")
    with receiver() as (url, got):
        planted = notice(f"{url}/500?token=planted")
        assert SECRET not in repr(planted)
        last = replace(planted, attempts=len(PAUSES_S) + 1)
        bad = replace(planted, url="https://user:planted@a.example/", attempts=2)
        odd = replace(planted, secret="whsec_planted")  # noqa: S106
        notices = FakeNotices(planted, last, bad, odd)
        async with sending(notices):
            await eventually(lambda: (len(notices.put_off), len(notices.over)) == (3, 1))
    assert len(got) == 3
    assert "notice n1" in caplog.text
    assert "planted" not in caplog.text
    assert SECRET not in caplog.text


async def test_a_table_that_is_away_is_asked_again() -> None:
    with receiver() as (url, _):
        notices = FakeNotices(notice(f"{url}/200"), away=1)
        async with sending(notices) as clock:
            await eventually(lambda: clock.sleepers == 1)
            await clock.advance(1.0)
            await eventually(lambda: notices.over == ["n1"])


class Held:
    """A `Post` to a host that takes the notice, and does not answer until `answer` is set."""

    answer = threading.Event()
    under_way: list[bool]

    def __init__(self, *_: object) -> None:
        """Whatever it is."""

    def send(self) -> int:
        self.under_way.append(True)
        self.answer.wait(200)
        return 200

    def abort(self) -> None:
        self.answer.set()


@pytest.fixture(name="held")
def _held(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Held]]:
    Held.answer.clear()
    Held.under_way = []
    monkeypatch.setattr("service.jobs.webhooks.sender.Post", Held)
    yield Held
    Held.answer.set()


async def test_the_table_is_told_what_each_tenant_has_under_way(held: type[Held]) -> None:
    waiting = [replace(notice("https://a.example"), id=f"n{number}", tenant=tenant) for number, tenant in enumerate(["acme", "acme", "b"])]
    notices = FakeNotices(*waiting)
    async with sending(notices):
        await eventually(lambda: notices.asked[-1:] == [(5, 2, {"acme": 2, "b": 1})])
        held.answer.set()
        await eventually(lambda: len(notices.over) == 3)
        await eventually(lambda: notices.asked[-1] == (8, 2, {}))


async def test_hosts_that_do_not_answer_hold_no_thread_that_others_need(held: type[Held]) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    notices = FakeNotices(*(replace(notice("https://a.example"), id=f"n{number}") for number in range(8)))
    async with sending(notices):
        await eventually(lambda: len(held.under_way) == 8)
        assert await asyncio.to_thread(int, "7") == 7
        held.answer.set()
        await eventually(lambda: len(notices.over) == 8)


class Silent:
    """A `Post` that runs out of time, unless its address ends in `/answers`."""

    tried: list[str]

    def __init__(self, url: str, *_: object) -> None:
        self.url = url

    def send(self) -> int:
        self.tried.append(self.url)
        if self.url.endswith("/answers"):
            return 200
        raise TimeoutError("timed out")

    def abort(self) -> None:
        """It has ended already."""


async def test_an_endpoint_that_never_answers_rests_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.jobs.webhooks.sender.Post", Silent)
    monkeypatch.setattr(Silent, "tried", [], raising=False)
    notices, silent = FakeNotices(), replace(notice("https://a.example/hook?job=1"), tenant="acme")

    async with sending(notices) as clock:

        async def comes(one: Notice) -> int:
            """How many are tried when `one` was due."""
            dealt = len(notices.put_off) + len(notices.over)
            notices.waiting.append(one)
            await eventually(lambda: clock.sleepers == 1)
            await clock.advance(1.0)
            await eventually(lambda: len(notices.put_off) + len(notices.over) > dealt)
            return len(Silent.tried)

        assert [await comes(silent) for _ in range(5)] == [1, 2, 3, 4, 5]
        assert notices.put_off == [PAUSES_S[0]] * 5
        assert await comes(replace(silent, url="https://a.example/hook?job=2")) == 5
        assert 250.0 < notices.put_off[-1] <= 300.0
        assert await comes(replace(silent, attempts=3)) == 5
        assert notices.put_off[-1] == PAUSES_S[2], "which is longer than the rest"
        assert await comes(replace(silent, tenant="other")) == 6
        assert await comes(replace(silent, url="https://a.example/other")) == 7
        assert await comes(replace(silent, attempts=len(PAUSES_S) + 1)) == 8, "the last attempt is made"
        assert notices.over == ["n1"]
        await clock.advance(300.0)
        assert await comes(silent) == 9
        assert await comes(silent) == 9, "it was silent again"


async def test_an_answer_ends_what_was_counted_of_silence() -> None:
    clock = ManualClock()
    rests, hook = Rests(clock), replace(notice("https://a.example/hook"), tenant="acme")
    rests.heard(hook)
    for _ in range(3):
        for _ in range(4):
            rests.silent(hook)
        assert rests.left_s(hook) == 0.0
        rests.heard(hook)
    for _ in range(5):
        rests.silent(hook)
    assert rests.left_s(hook) == 300.0
    await clock.advance(120.0)
    assert rests.left_s(hook) == 180.0
    rests.heard(hook)
    assert rests.left_s(hook) == 0.0


HOSTILE = ("h1", "h2", "h3", "h4")


def test_whoever_has_the_fewest_under_way_goes_first() -> None:
    waiting = dict.fromkeys(HOSTILE, 1.0) | {"good": 99.0}
    sending = {"h1": 2, "h2": 2, "h3": 2, "h4": 1}
    assert shares(waiting, Places(1, 2, sending)) == {"good": 1}
    assert shares(waiting, Places(8, 2)) == {"h1": 2, "h2": 2, "h3": 2, "h4": 1, "good": 1}
    assert shares({"good": 1.0}, Places(8, 2)) == {"good": 2}
    assert shares(waiting, Places(0, 2)) == {}


def test_tenants_whose_hosts_take_long_share_a_part_of_the_places() -> None:
    """Four of them, or forty, leave the rest to those whose hosts are quick."""
    many = [f"h{number}" for number in range(40)]
    places = Places(8, 2, {}, frozenset(many), 4)
    waiting = dict.fromkeys(many, 1.0) | {"good": 99.0, "quick": 98.0}
    found = shares(waiting, places)
    assert sum(number for tenant, number in found.items() if tenant in many) == 4
    assert max(number for tenant, number in found.items() if tenant in many) == 1
    assert {tenant: found[tenant] for tenant in ("good", "quick")} == {"good": 2, "quick": 2}
    assert shares(waiting, replace(places, free=4, sending=dict.fromkeys(many[:4], 1))) == {"quick": 2, "good": 2}


async def test_tenants_whose_hosts_hang_leave_places_to_others(held: type[Held]) -> None:
    """The first attempts of four tenants fill all places. Once these took long, the four have half of them at most."""
    notices = FakeNotices(*(replace(notice("https://a.example"), id=f"n{n}", tenant=HOSTILE[n % 4]) for n in range(8)))
    async with sending(notices) as clock:
        await eventually(lambda: len(held.under_way) == 8)
        await clock.advance(3.0)
        held.answer.set()
        await eventually(lambda: len(notices.over) == 8)
        await eventually(lambda: notices.slow == set(HOSTILE))
        await clock.advance(900.0)
        await eventually(lambda: notices.slow == set())


async def test_the_outbox_has_a_notice_for_each_end_but_a_cancel(database: Database) -> None:
    now = 100.0
    table, other = NoticeTable(database, lambda: now), NoticeTable(database, lambda: now)
    writer = NoticeWriter({"openai": lambda job: {"type": "video.completed", "data": {"id": f"video_{job.id}"}}}, lambda: now)
    hook = Webhook("https://a.example/hook", SECRET, {"order": "7"})
    ends = [
        EndedJob(JOB, hook), EndedJob(JOB, None), EndedJob(replace(JOB, id="b", door="openai"), hook),
        EndedJob(replace(JOB, id="c", status=JobStatus.CANCELLED), hook),
        EndedJob(replace(JOB, id="d", status=JobStatus.FAILED, error=JobError("unavailable", "no")), replace(hook, metadata={})),
    ]  # fmt: skip
    for end in (*ends, ends[0]):  # an end may be written twice, and is one end
        await database.run(lambda connection, end=end: writer.on_end(connection, end))  # type: ignore[misc]
    taken = await table.take(Places(10, 10), lease_s=60.0)
    assert await other.take(Places(10, 10), lease_s=60.0) == []
    bodies = {found.id: json.loads(found.body) for found in taken}
    assert bodies == {
        f"webhook-{JOB.id}-completed": {
            "type": "job.completed", "timestamp": 12.0, "data": {"id": JOB.id, "status": "completed", "error": None},
            "metadata": {"order": "7"},
        },
        "webhook-b-completed": {"type": "video.completed", "data": {"id": "video_b"}, "metadata": {"order": "7"}},
        "webhook-d-failed": {"type": "job.failed", "timestamp": 12.0, "data": {"id": "d", "status": "failed", "error": "unavailable"}},
    }  # fmt: skip
    assert {(found.url, found.secret, found.attempts) for found in taken} == {(hook.url, SECRET, 1)}
    await table.done("webhook-b-completed")
    await table.later("webhook-d-failed", 5.0)
    now += 6.0
    [again] = await other.take(Places(10, 10), lease_s=60.0)
    assert (again.id, again.attempts) == ("webhook-d-failed", 2)
    now += 60.0  # whoever took them has died
    assert {found.id for found in await other.take(Places(10, 10), lease_s=60.0)} == {"webhook-d-failed", f"webhook-{JOB.id}-completed"}


async def test_a_tenant_with_many_notices_has_a_few_taken_and_others_are_found_behind_them(database: Database) -> None:
    now = 100.0
    table, writer = NoticeTable(database, lambda: now), NoticeWriter({}, lambda: now)

    async def ends(tenant: str, *names: str) -> None:
        for name in names:
            end = EndedJob(replace(JOB, id=name, tenant=tenant), Webhook("https://a.example/hook", "", {}))
            await database.run(partial(writer.on_end, ended=end))

    async def taken(most: int, **sending: int) -> dict[str, int]:
        return dict(Counter(found.tenant for found in await table.take(Places(most, 2, sending), lease_s=60.0)))

    await ends("acme", *(f"a{number:02d}" for number in range(30)))
    now += 1.0
    await ends("b", "b1", "b2", "b3")
    await ends("c", "c1")
    assert await taken(8) == {"acme": 2, "b": 2, "c": 1}
    assert await taken(3, acme=2, b=2, c=1) == {}
    assert await taken(3, acme=1, b=2) == {"acme": 1}
    assert await taken(1, acme=2, b=1) == {"b": 1}
    assert await taken(8, c=2) == {"acme": 2}
    assert len(await table.take(Places(100, 100), lease_s=60.0)) == 25


async def test_notices_that_an_earlier_headrace_wrote_are_nobodys_in_particular(database: Database) -> None:
    body = json.dumps({"url": "https://a.example", "secret": "", "event": "{}"})

    def write(connection: Connection) -> None:
        for name in ("one", "two", "three"):
            connection.execute(OUTBOX.insert().values(id=name, kind=KIND, body=body, next_at=1.0))

    await database.run(write)
    table = NoticeTable(database, lambda: 2.0)
    assert [found.tenant for found in await table.take(Places(8, 2, {"acme": 2}), lease_s=60.0)] == ["", ""]
    assert await table.take(Places(8, 2, {"": 2}), lease_s=60.0) == []
    assert len(await table.take(Places(8, 2), lease_s=60.0)) == 1

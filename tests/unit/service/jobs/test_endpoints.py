"""Webhooks that a tenant registers once: kept, checked, told of every job, and silent once they are removed."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from bench.kit.postgres import Postgres
from model_core.errors import InvalidRequest
from service.database.engine import Database
from service.identity.principal import Forbidden, Principal, QuotaExceeded
from service.jobs.job import JobError, Webhook
from service.jobs.webhooks.endpoint_table import EndpointTable
from service.jobs.webhooks.endpoints import MOST, EndpointConflict, EndpointNotFound
from service.jobs.webhooks.notices import Notice, NoticeTable, NoticeWriter, Places
from service.jobs.webhooks.posting import TargetPolicy
from tests.jobs import ALICE, BOB, FINISHED, Jobs, Wall, new_job

URL = "https://hooks.example/a"


class Reported:
    """Jobs, endpoints and notices over one table."""

    def __init__(self, database: Database, policy: TargetPolicy | None = None) -> None:
        self.wall, numbers = Wall(), itertools.count(1)
        self.audited: list[tuple[str, str, str]] = []
        new_id: Callable[[], str] = lambda: f"e{next(numbers):011d}"  # noqa: E731 - so that secrets differ as ids do
        self.endpoints = EndpointTable(
            database, policy or TargetPolicy(), self.wall, new_id, lambda: f"whsec_{next(numbers)}", self._audit
        )  # fmt: skip
        writer = NoticeWriter({"openai": lambda job: {"type": "video.completed", "data": {"id": f"video_{job.id}"}}}, self.wall)
        self.jobs = Jobs(database, told=[writer.on_end])
        self._notices = NoticeTable(database, self.wall)

    def _audit(self, connection: Connection, principal: Principal, operation: str, resource: str) -> None:
        self.audited.append((principal.tenant, operation, resource))

    async def notices(self) -> list[Notice]:
        """All that are due, by their addresses."""
        return sorted(await self._notices.take(Places(100, 100), lease_s=0.0), key=lambda notice: notice.url)


@pytest.fixture(name="reported")
def _reported(database: Database) -> Reported:
    return Reported(database)


async def test_every_job_of_the_tenant_that_ends_is_reported_to_each_with_its_own_secret(reported: Reported) -> None:
    first, second = await reported.endpoints.register(ALICE, URL), await reported.endpoints.register(ALICE, f"{URL}/2")
    await reported.endpoints.register(BOB, "https://bob.example/")
    job, fence = await reported.jobs.running(webhook=Webhook("https://job.example/", "own", {"order": "7"}))
    await reported.jobs.store.complete(job, fence, FINISHED)
    found = await reported.notices()
    assert [(notice.url, notice.secret) for notice in found] == [
        (URL, first.secret), (f"{URL}/2", second.secret), ("https://job.example/", "own"),
    ]  # fmt: skip
    event = {"type": "video.completed", "data": {"id": f"video_{job}"}}
    assert [json.loads(notice.body) for notice in found] == [event, event, event | {"metadata": {"order": "7"}}]
    assert len({notice.id for notice in found}) == 3


async def test_a_job_without_a_webhook_is_reported_and_a_cancel_is_not(reported: Reported) -> None:
    await reported.endpoints.register(ALICE, URL)
    failed, fence = await reported.jobs.running()
    await reported.jobs.store.fail(failed, fence, JobError("internal", "a defect"))
    cancelled = await reported.jobs.desk.submit(ALICE, new_job())
    await reported.jobs.desk.cancel(ALICE, cancelled.id)
    bobs, fence = await reported.jobs.running(BOB)
    await reported.jobs.store.complete(bobs, fence, FINISHED)
    assert [notice.id.split("-")[1] for notice in await reported.notices()] == [failed]


async def test_a_secret_is_shown_once_and_nobody_sees_anothers_endpoints(reported: Reported) -> None:
    made = await reported.endpoints.register(ALICE, URL)
    assert made.secret
    assert made.secret not in repr(made)
    [listed] = await reported.endpoints.list(ALICE)
    assert (listed.id, listed.url, listed.created_at, listed.secret) == (made.id, URL, reported.wall.at, "")
    assert await reported.endpoints.list(BOB) == []
    with pytest.raises(EndpointNotFound) as foreign:
        await reported.endpoints.remove(BOB, made.id)
    with pytest.raises(EndpointNotFound) as unknown:
        await reported.endpoints.remove(BOB, "e99999999999")
    assert str(foreign.value).replace(made.id, "ID") == str(unknown.value).replace("e99999999999", "ID")
    assert reported.audited == [("alice", "webhook_endpoint.create", made.id)]


async def test_a_token_for_a_page_sees_and_changes_none(reported: Reported) -> None:
    made = await reported.endpoints.register(ALICE, URL)
    derived = replace(ALICE, derived=True)
    for what, call in (
        ("register", reported.endpoints.register(derived, f"{URL}/2")),
        ("list", reported.endpoints.list(derived)),
        ("delete", reported.endpoints.remove(derived, made.id)),
    ):
        with pytest.raises(Forbidden, match=f"a token or ticket that this server made cannot {what} webhook endpoints"):
            await call
    assert [each.id for each in await reported.endpoints.list(ALICE)] == [made.id]


async def test_what_was_not_sent_yet_to_an_endpoint_that_is_removed_is_not_sent(reported: Reported) -> None:
    gone, stays = await reported.endpoints.register(ALICE, URL), await reported.endpoints.register(ALICE, f"{URL}/2")
    job, fence = await reported.jobs.running()
    await reported.jobs.store.complete(job, fence, FINISHED)
    await reported.endpoints.remove(ALICE, gone.id)
    assert [notice.url for notice in await reported.notices()] == [stays.url]
    assert [each.id for each in await reported.endpoints.list(ALICE)] == [stays.id]
    with pytest.raises(EndpointNotFound):
        await reported.endpoints.remove(ALICE, gone.id)
    assert reported.audited[-1] == ("alice", "webhook_endpoint.delete", gone.id)


async def test_a_tenant_has_so_many_and_each_address_once(reported: Reported) -> None:
    await reported.endpoints.register(ALICE, URL)
    with pytest.raises(EndpointConflict, match="registered already"):
        await reported.endpoints.register(ALICE, URL)
    await reported.endpoints.register(BOB, URL)
    for number in range(MOST - 1):
        await reported.endpoints.register(ALICE, f"{URL}/{number}")
    with pytest.raises(QuotaExceeded, match=f"webhook_endpoints of tenant alice are {MOST} at most; got {MOST + 1}") as caught:
        await reported.endpoints.register(ALICE, f"{URL}/more")
    assert caught.value.retry_after_s is None


async def test_two_front_doors_do_not_register_one_address_at_once(postgres: Postgres) -> None:
    url = postgres.fresh()
    one, other = await Database.open(url, timeout_s=20.0), await Database.open(url, timeout_s=20.0)
    first, second = Reported(one), Reported(other)
    began, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:  # the transaction, when its row is written
        began.set()
        go_on.wait(200)

    async def waits() -> bool:
        """Whether a transaction waits for another one's lock."""
        locks = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(await one.run(lambda connection: connection.execute(locks).scalar_one(), write=False))

    first.endpoints = EndpointTable(one, TargetPolicy(), first.wall, lambda: "e1", lambda: "whsec_1", hold)
    try:
        begun = asyncio.create_task(first.endpoints.register(ALICE, URL))
        await asyncio.to_thread(began.wait, 20)
        late = asyncio.create_task(second.endpoints.register(ALICE, URL))
        while not late.done() and not await waits():  # noqa: ASYNC110 - what is watched has no event
            await asyncio.sleep(0.01)
        go_on.set()
        await begun
        with pytest.raises(EndpointConflict):
            await late
    finally:
        go_on.set()
        await asyncio.gather(one.close(), other.close())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://hooks.example/", "must begin with https://"),
        ("https://127.0.0.1/", "is not a public one"),
        ("https://[::1]/", "is not a public one"),
        ("https://169.254.169.254/latest", "is not a public one"),
        ("https://user:planted@hooks.example/", "without a name and a password"),
        ("ftp://hooks.example/", "must be https://HOST/PATH"),
        ("https://hooks.example:port/", "cannot be read"),
        ("https://hooks.example/" + "a" * 2048, "must be at most 2048 characters; got 2070"),
    ],
)
async def test_an_address_that_this_server_posts_nothing_to_is_refused(reported: Reported, url: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await reported.endpoints.register(ALICE, url)
    [violation] = caught.value.violations
    assert violation.field == "url"
    assert told in violation.description
    assert "planted" not in violation.description
    assert await reported.endpoints.list(ALICE) == []


async def test_private_addresses_may_be_allowed(database: Database) -> None:
    allowed = TargetPolicy((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.1.0.0/16")))
    reported = Reported(database, allowed)
    for url in ("http://127.0.0.1:8000/hook", "https://10.1.2.3/hook", "http://localhost:8000/hook"):
        await reported.endpoints.register(ALICE, url)
    with pytest.raises(InvalidRequest, match="is not a public one"):
        await reported.endpoints.register(ALICE, "https://10.2.0.1/hook")
    with pytest.raises(InvalidRequest, match="must begin with https://"):
        await reported.endpoints.register(ALICE, "http://10.1.2.3/hook")

"""The webhook endpoints of tenants over a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, func, select

from model_core.errors import FieldViolation, InvalidRequest
from service.database.engine import Database
from service.database.schema import ENDPOINTS, OUTBOX
from service.identity.principal import Principal, QuotaExceeded
from service.jobs.desk.table_desk import JobAudit, no_audit
from service.jobs.webhooks.endpoints import MAX_URL_CHARS, MOST, Endpoint, EndpointConflict, EndpointNotFound
from service.jobs.webhooks.notices import KIND, endpoint_suffix
from service.jobs.webhooks.posting import TargetPolicy, TargetRefused


class EndpointTable:
    """An `EndpointDesk` over a table.

    Args:
        database: where it is.
        policy: where this server posts.
        now: Unix time.
        new_id: 12 characters of [a-z0-9].
        new_secret: `whsec_` and 32 bytes of chance in base64.
        audit: told of what callers change.
    """

    def __init__(
        self,
        database: Database,
        policy: TargetPolicy,
        now: Callable[[], float],
        new_id: Callable[[], str],
        new_secret: Callable[[], str],
        audit: JobAudit = no_audit,
    ) -> None:
        self._database, self._policy, self._now = database, policy, now
        self._new_id, self._new_secret, self._audit = new_id, new_secret, audit

    async def register(self, principal: Principal, url: str) -> Endpoint:
        """See `EndpointDesk`."""
        principal.check_lasting("register webhook endpoints")
        self._check(url)
        made = Endpoint(self._new_id(), url, self._now(), self._new_secret())
        await self._database.run(partial(self._put, principal=principal, made=made))
        return made

    async def list(self, principal: Principal) -> Sequence[Endpoint]:
        """See `EndpointDesk`."""
        principal.check_lasting("list webhook endpoints")
        return await self._database.run(partial(_listed, tenant=principal.tenant), write=False)

    async def remove(self, principal: Principal, endpoint_id: str) -> None:
        """See `EndpointDesk`."""
        principal.check_lasting("delete webhook endpoints")
        await self._database.run(partial(self._remove, principal=principal, endpoint_id=endpoint_id))

    def _check(self, url: str) -> None:
        """As far as can be told without asking for the host's addresses, which are judged each time that something is sent."""
        if len(url) > MAX_URL_CHARS:
            raise _invalid(f"must be at most {MAX_URL_CHARS} characters; got {len(url)}")
        try:
            self._policy.check_url(url)
        except TargetRefused as error:
            raise _invalid(f"cannot be posted to: {error}") from None  # which does not repeat it: it may hold a secret

    def _put(self, connection: Connection, principal: Principal, made: Endpoint) -> None:
        tenant = principal.tenant
        _one_at_a_time(connection, tenant)
        there = connection.execute(select(ENDPOINTS.c.id).where(ENDPOINTS.c.tenant == tenant, ENDPOINTS.c.url == made.url)).first()
        if there is not None:
            if there.id == made.id:  # as after a lost connection
                return
            raise EndpointConflict("the address is registered already; delete that endpoint first")
        count = connection.execute(select(func.count()).select_from(ENDPOINTS).where(ENDPOINTS.c.tenant == tenant)).scalar_one()
        if count >= MOST:
            sentence = f"webhook_endpoints of tenant {tenant or 'nobody in particular'} are {MOST} at most; got {count + 1}"
            raise QuotaExceeded(sentence, limit="webhook_endpoints", allowed=MOST, used=count)
        row = {"id": made.id, "tenant": tenant, "url": made.url, "secret": made.secret, "created_at": made.created_at}
        connection.execute(ENDPOINTS.insert().values(row))
        self._audit(connection, principal, "webhook_endpoint.create", made.id)

    def _remove(self, connection: Connection, principal: Principal, endpoint_id: str) -> None:
        own = (ENDPOINTS.c.id == endpoint_id, ENDPOINTS.c.tenant == principal.tenant)
        if connection.execute(delete(ENDPOINTS).where(*own)).rowcount != 1:
            raise EndpointNotFound(f"no webhook endpoint has the id {endpoint_id[:64]!a}")
        unsent = (OUTBOX.c.kind == KIND, OUTBOX.c.id.endswith(endpoint_suffix(endpoint_id), autoescape=True))
        connection.execute(delete(OUTBOX).where(*unsent))
        self._audit(connection, principal, "webhook_endpoint.delete", endpoint_id)


def _one_at_a_time(connection: Connection, tenant: str) -> None:
    """Until the end of the transaction, nobody else registers for `tenant`. With SQLite, transactions that write are so by themselves."""
    if connection.dialect.name == "postgresql":
        names = (func.hashtext("headrace webhook endpoints"), func.hashtext(tenant))
        connection.execute(select(func.pg_advisory_xact_lock(*names)))


def _listed(connection: Connection, tenant: str) -> list[Endpoint]:
    columns = (ENDPOINTS.c.id, ENDPOINTS.c.url, ENDPOINTS.c.created_at)
    rows: Sequence[Any] = connection.execute(
        select(*columns).where(ENDPOINTS.c.tenant == tenant).order_by(ENDPOINTS.c.created_at, ENDPOINTS.c.id)
    ).all()
    return [Endpoint(row.id, row.url, row.created_at) for row in rows]


def _invalid(sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation("url", sentence),))

"""Keys in the table: made, found, rotated, revoked, and each of it twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

import pytest
from sqlalchemy import text

from model_core.errors import InvalidRequest
from service.identity import table
from service.identity.keys import KeyRecord, Keyring, Master
from service.identity.table import KeyNotFound
from tests.identities import MASTER, NOW, CountedDatabase, opened

RING = Keyring(Master(MASTER))


@pytest.fixture(name="database")
async def _database(database_url: str) -> AsyncGenerator[CountedDatabase, None]:
    async with opened(database_url) as database:
        yield database


async def test_a_key_is_stored_without_its_secret(database: CountedDatabase) -> None:
    secret = RING.new()
    make = partial(
        table.create, secret=secret, now=NOW, tenant="studio", name="Ann's laptop", models=["b", "a"], buckets=["r"], expires_at=NOW + 9
    )
    for _ in range(2):
        await database.run(make)
    assert await database.run(table.listed, write=False) == [
        KeyRecord(
            id=secret.id, tenant="studio", name="Ann's laptop", prefix=f"hr_live_{secret.id}", secret_hmac=secret.digest, version=1,
            created_at=NOW, expires_at=NOW + 9, models=frozenset({"a", "b"}), buckets=frozenset({"r"}),
        )
    ]  # fmt: skip
    rows = await database.run(lambda connection: [str(row) for row in connection.execute(text("SELECT * FROM keys"))], write=False)
    for planted in (MASTER, secret.key[-43:], secret.secret_key):
        assert planted not in "".join(rows)


async def test_a_rotation_keeps_one_secret_besides_the_new_one(database: CountedDatabase) -> None:
    first = RING.new()
    await database.run(partial(table.create, secret=first, now=NOW, tenant="studio"))
    second, third = RING.renewed(first.id, 2), RING.renewed(first.id, 3)
    for _ in range(2):
        await database.run(partial(table.rotate, secret=second, version=2, now=NOW, overlap_s=60.0))
    record = await database.run(partial(table.find, key_id=first.id), write=False)
    assert record is not None
    assert (record.secret_hmac, record.previous_hmac, record.previous_until) == (second.digest, first.digest, NOW + 60)
    await database.run(partial(table.rotate, secret=third, version=3, now=NOW, overlap_s=0.0))
    record = await database.run(partial(table.find, key_id=first.id), write=False)
    assert record is not None
    assert (record.secret_hmac, record.previous_hmac, record.version) == (third.digest, second.digest, 3)
    with pytest.raises(InvalidRequest, match="which was rotated meanwhile"):
        await database.run(partial(table.rotate, secret=RING.renewed(first.id, 3), version=3, now=NOW, overlap_s=0.0))


async def test_a_revoked_key_stays_in_the_list_and_does_not_come_back(database: CountedDatabase) -> None:
    secret = RING.new()
    await database.run(partial(table.create, secret=secret, now=NOW, tenant="studio"))
    for later in (0, 7):
        assert (await database.run(partial(table.revoke, key_id=secret.id, now=NOW + later))).revoked_at == NOW
    with pytest.raises(InvalidRequest, match="which was revoked or has expired"):
        await database.run(partial(table.rotate, secret=RING.renewed(secret.id, 2), version=2, now=NOW, overlap_s=60.0))
    assert len(await database.run(partial(table.listed, tenant="studio"), write=False)) == 1
    assert await database.run(partial(table.listed, tenant="other"), write=False) == []
    with pytest.raises(KeyNotFound, match="no key has the id 'nobodys'"):
        await database.run(partial(table.revoke, key_id="nobodys", now=NOW))


@pytest.mark.parametrize(
    ("facts", "said"),
    [({"expires_at": NOW}, "expires: must be in the future; got 0 s from now"), ({"name": "x" * 201}, "name: must have at most 200")],
)
async def test_a_key_that_makes_no_sense_is_refused(database: CountedDatabase, facts: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        await database.run(lambda connection: table.create(connection, RING.new(), NOW, tenant="studio", **facts))  # type: ignore[arg-type]
    assert await database.run(table.listed, write=False) == []

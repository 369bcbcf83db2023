"""Whom callers are taken for, and what it costs the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from model_core.errors import InvalidRequest, StageUnavailable
from service.identity import table
from service.identity.jwks import IssuerKeys
from service.identity.keys import Keyring, Master, NewSecret
from service.identity.open_door import OpenDoor
from service.identity.peers import Proxies, is_local
from service.identity.principal import NOBODY, Caller, Forbidden, Means, Principal, Unauthenticated
from service.identity.tokens import IssuerPolicy, IssuerTokens
from tests.fakes import ManualClock, eventually
from tests.identities import AUDIENCE, ISSUER, NOW, Kept, Provider, Wall, kept

HERE, ELSEWHERE = Caller(address="127.0.0.1"), Caller(address="10.0.0.7")
SPIFFE = "spiffe://example.org/studio"


@pytest.fixture(name="door")
async def _door(tmp_path: Path) -> AsyncGenerator[Kept, None]:
    async with kept(tmp_path, certificates={SPIFFE: "studio"}, proxies=["10.0.0.0/24", "fd00::1"]) as door:
        yield door


async def test_a_key_is_its_tenants(door: Kept) -> None:
    secret = await door.key("studio", models=["millrace-64"], buckets=["results"])
    assert await door.authority.by_secret(secret.key, ELSEWHERE) == Principal(
        tenant="studio", subject=secret.id, means=Means.KEY, models=frozenset({"millrace-64"}), buckets=frozenset({"results"})
    )


async def test_a_flood_of_wrong_keys_asks_the_database_nothing(door: Kept) -> None:
    """Of a key that exists, the first one asks once; of one that nobody made, none does."""
    known, stranger = await door.key(), Keyring(Master("another-master-secret-of-other-front-doors"))
    wrong = [f"{known.key[:-20]}{number:020d}" for number in range(300)]
    invented = [stranger.new().key for _ in range(300)]
    others = ["", "x" * 100_000, "Basic abc", "hr_live_", "hr_token_", "a.b.c", "\u2603"]
    for presented in (*wrong, *invented, *others):
        with pytest.raises(Unauthenticated) as caught:
            await door.authority.by_secret(presented, ELSEWHERE)
        assert presented == "" or presented not in str(caught.value)
    for access_key in (stranger.new().access_key, "AKIAIOSFODNN7EXAMPLE", ""):
        with pytest.raises(Unauthenticated):
            await door.authority.by_access_key(access_key, ELSEWHERE)
    assert door.database.calls == 1


async def test_a_key_that_the_table_lacks_is_asked_for_once_in_a_while(door: Kept) -> None:
    gone = door.ring.new()
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await door.authority.by_secret(gone.key, ELSEWHERE)
    assert door.database.calls == 1
    await door.clock.advance(30.0)
    with pytest.raises(Unauthenticated):
        await door.authority.by_secret(gone.key, ELSEWHERE)
    assert door.database.calls == 2


async def test_a_thousand_calls_with_one_key_ask_the_database_once(door: Kept) -> None:
    secret = await door.key()
    principals = await asyncio.gather(*(door.authority.by_secret(secret.key, ELSEWHERE) for _ in range(1000)))
    assert set(principals) == {Principal(tenant="studio", subject=secret.id, means=Means.KEY)}
    await door.keys.aclose()
    assert door.database.calls == 2, "the row, and when it was used"
    [record] = await door.database.run(table.listed, write=False)
    assert record.last_used_at == NOW


async def test_a_revoked_key_is_refused_when_the_memory_of_it_ends(door: Kept) -> None:
    secret = await door.key()
    await door.authority.by_secret(secret.key, ELSEWHERE)
    await eventually(lambda: door.database.calls == 2)
    await door.database.run(lambda connection: table.revoke(connection, secret.id, NOW))
    await door.authority.by_secret(secret.key, ELSEWHERE)
    await door.clock.advance(30.0)
    for ask in (door.authority.by_secret(secret.key, ELSEWHERE), door.authority.by_access_key(secret.access_key, ELSEWHERE)):
        with pytest.raises(Unauthenticated):
            await ask


async def test_a_key_ends_on_time_whatever_is_remembered(door: Kept) -> None:
    secret = await door.key(expires_at=NOW + 10)
    await door.authority.by_secret(secret.key, ELSEWHERE)
    door.wall.now += 10
    with pytest.raises(Unauthenticated):
        await door.authority.by_secret(secret.key, ELSEWHERE)


async def test_both_secrets_count_while_a_rotation_overlaps(door: Kept) -> None:
    old = await door.key()
    new = door.ring.renewed(old.id, 2)
    await door.database.run(lambda connection: table.rotate(connection, new, 2, NOW, 60.0))
    for secret in (old, new):
        assert (await door.authority.by_secret(secret.key, ELSEWHERE)).subject == old.id
    principal, signing = await door.authority.by_access_key(old.access_key, ELSEWHERE)
    assert (principal.means, signing) == (Means.SIGNATURE, (new.secret_key, old.secret_key))
    door.wall.now += 60
    with pytest.raises(Unauthenticated):
        await door.authority.by_secret(old.key, ELSEWHERE)
    assert (await door.authority.by_access_key(old.access_key, ELSEWHERE))[1] == (new.secret_key,)


async def test_without_its_database_a_door_knows_whom_it_knew(door: Kept) -> None:
    known, new = await door.key(), await door.key()
    await door.authority.by_secret(known.key, ELSEWHERE)
    door.database.away = True
    assert (await door.authority.by_secret(known.key, ELSEWHERE)).tenant == "studio"
    with pytest.raises(StageUnavailable):
        await door.authority.by_secret(new.key, ELSEWHERE)
    door.database.away = False
    assert (await door.authority.by_secret(new.key, ELSEWHERE)).tenant == "studio"


async def test_a_certificate_is_its_tenants_and_an_unknown_one_nobodys(door: Kept) -> None:
    known = Caller(address="192.0.2.1", certificate_names=("dns.example.org", SPIFFE))
    assert await door.authority.without_secret(known) == Principal(tenant="studio", subject=SPIFFE, means=Means.CERTIFICATE)
    for names in ((), (SPIFFE + "/more",), ("studio",)):
        with pytest.raises(Unauthenticated):
            await door.authority.without_secret(Caller(address="192.0.2.1", certificate_names=names))


@pytest.mark.parametrize(
    ("address", "counts"),
    [("10.0.0.7", True), ("::ffff:10.0.0.7", True), ("fd00::1", True), ("fd00::1%eth0", True), ("10.0.1.7", False), ("127.0.0.1", False),
     ("", False), ("ipv4:10.0.0.7:99", False), ("fd00::2", False)],
)  # fmt: skip
async def test_a_tenant_header_counts_from_a_named_proxy_alone(door: Kept, address: str, *, counts: bool) -> None:
    caller = Caller(address=address, claimed_tenant="studio")
    if counts:
        assert await door.authority.without_secret(caller) == Principal(tenant="studio", subject="studio", means=Means.PROXY)
    else:
        with pytest.raises(Unauthenticated):
            await door.authority.without_secret(caller)


async def test_a_key_counts_before_what_a_proxy_says(door: Kept) -> None:
    secret = await door.key("studio")
    principal = await door.authority.by_secret(secret.key, Caller(address="10.0.0.7", claimed_tenant="other"))
    assert principal.tenant == "studio"
    with pytest.raises(Unauthenticated):
        await door.authority.without_secret(Caller(address="10.0.0.7"))


async def test_a_tenants_buckets_do_not_depend_on_how_its_callers_are_known(tmp_path: Path) -> None:
    provider, wall = Provider(), Wall()
    policy = IssuerPolicy(issuer=ISSUER, audiences=(AUDIENCE,), algorithms=("ES256",), buckets_claim="buckets")
    issuer = IssuerTokens(policy, IssuerKeys(provider.fetch, ManualClock()), 30.0, ManualClock(), wall)
    buckets = {"studio": ["films"], "other": ["theirs"]}
    async with kept(tmp_path, issuer=issuer, certificates={SPIFFE: "studio"}, proxies=["10.0.0.0/24"], buckets=buckets) as door:
        secret = await door.key("studio", buckets=["results"])
        key = await door.authority.by_secret(secret.key, ELSEWHERE)
        signed, _ = await door.authority.by_access_key(secret.access_key, ELSEWHERE)
        token_ = await door.authority.by_secret(provider.token(buckets=["trailers"]), ELSEWHERE)
        certificate = await door.authority.without_secret(Caller(address="192.0.2.1", certificate_names=(SPIFFE,)))
        proxied = await door.authority.without_secret(Caller(address="10.0.0.7", claimed_tenant="studio"))
        assert key.buckets == signed.buckets == {"films", "results"}
        assert token_.buckets == {"films", "trailers"}
        assert certificate.buckets == proxied.buckets == {"films"}
        assert (await door.authority.by_secret(await token(door, key), ELSEWHERE)).buckets == frozenset()
        assert (await door.authority.by_secret(provider.token(tenant="third"), ELSEWHERE)).buckets == frozenset()


@pytest.mark.parametrize("name", ["a b", "x" * 65, "../etc", "\u00e9", "studio\n"])
async def test_a_tenant_that_cannot_be_one_is_bad_input(door: Kept, name: str) -> None:
    for authority in (door.authority, OpenDoor(Proxies(["10.0.0.7"]), Wall())):
        with pytest.raises(InvalidRequest, match="x-headrace-tenant: must be 1 to 64 letters"):
            await authority.without_secret(Caller(address="10.0.0.7", claimed_tenant=name))


# -- client tokens


async def token(door: Kept, principal: Principal, **told: object) -> str:
    asked = {"seconds": 60.0, "models": None, "max_seconds": None, "origin": "", **told}
    made, expires_at = await door.authority.client_token(principal, **asked)  # type: ignore[arg-type]  # as the test says
    assert expires_at == NOW + 60.0
    return made


async def made_by(door: Kept, secret: NewSecret) -> Principal:
    return await door.authority.by_secret(secret.key, ELSEWHERE)


async def test_a_client_token_may_do_at_most_what_its_key_may(door: Kept) -> None:
    secret = await door.key(models=["a", "b"], buckets=["results"])
    key = await made_by(door, secret)
    made = await token(door, key, models=["a"], max_seconds=5.0, origin="https://shop.example")
    caller = Caller(address="192.0.2.1", origin="https://shop.example")
    found = await door.authority.by_secret(made, caller)
    assert found == Principal(
        tenant="studio", subject=secret.id, means=Means.TOKEN, models=frozenset({"a"}), max_seconds=5.0, origin="https://shop.example",
        derived=True, token=found.token,
    )  # fmt: skip
    other = await door.authority.by_secret(await token(door, key), caller)
    assert len({key.maker, found.maker, other.maker, (await door.authority.by_secret(made, caller)).maker}) == 3, "each has its own name"
    assert key.maker is None
    assert found.token
    assert other.token
    assert (await door.authority.by_secret(await token(door, key), caller)).models == frozenset({"a", "b"})
    with pytest.raises(Forbidden, match="model must be one of a, b with this credential; got c"):
        await token(door, key, models=["c"])
    for origin in ("", "https://other.example"):
        with pytest.raises(Unauthenticated):
            await door.authority.by_secret(made, Caller(address="192.0.2.1", origin=origin))


async def test_what_the_server_made_of_a_credential_is_told_from_it(tmp_path: Path) -> None:
    provider, wall = Provider(), Wall()
    policy = IssuerPolicy(issuer=ISSUER, audiences=(AUDIENCE,), algorithms=("ES256",))
    issuer = IssuerTokens(policy, IssuerKeys(provider.fetch, ManualClock()), 30.0, ManualClock(), wall)
    async with kept(tmp_path, issuer=issuer) as door:
        key = await made_by(door, await door.key())
        issued = await door.authority.by_secret(provider.token(), ELSEWHERE)
        assert not key.derived
        assert not issued.derived
        token_ = await door.authority.by_secret(await token(door, key), ELSEWHERE)
        for maker in (key, issued, token_):
            ticket, _ = await door.authority.ticket(maker)
            assert (await door.authority.by_secret(ticket, ELSEWHERE)).derived
        assert token_.derived


async def test_a_client_token_ends_on_time_and_with_its_key(door: Kept) -> None:
    secret = await door.key()
    made = await token(door, await made_by(door, secret))
    door.wall.now += 61
    with pytest.raises(Unauthenticated):
        await door.authority.by_secret(made, ELSEWHERE)
    door.wall.now -= 61
    await door.authority.by_secret(made, ELSEWHERE)
    await door.database.run(lambda connection: table.revoke(connection, secret.id, NOW))
    await door.clock.advance(30.0)
    with pytest.raises(Unauthenticated):
        await door.authority.by_secret(made, ELSEWHERE)


async def test_a_client_token_makes_no_other_and_nobody_else_makes_one(door: Kept) -> None:
    secret = await door.key()
    made = await token(door, await made_by(door, secret))
    principal = await door.authority.by_secret(made, ELSEWHERE)
    with pytest.raises(Forbidden, match="a token cannot make another token"):
        await token(door, principal)
    changed = made[:-5] + ("AAAAA" if not made.endswith("AAAAA") else "BBBBB")
    for wrong in (changed, made + "x", made.removeprefix("hr_token_"), made.rpartition(".")[0] + "."):
        with pytest.raises(Unauthenticated):
            await door.authority.by_secret(wrong, ELSEWHERE)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 86_401.0, float("nan"), float("inf")])
async def test_a_client_token_has_an_end(door: Kept, seconds: float) -> None:
    key = await made_by(door, await door.key())
    for authority in (door.authority, OpenDoor(Proxies(), door.wall)):
        with pytest.raises(InvalidRequest, match="must be more than 0 and at most 86400; got"):
            await authority.client_token(key, seconds=seconds, models=None, max_seconds=None, origin="")


# -- keys off


async def test_an_open_door_takes_every_credential_and_believes_its_own_machine() -> None:
    door = OpenDoor(Proxies(["10.0.0.9"]), Wall())
    assert await door.by_secret("dummy", ELSEWHERE) == NOBODY
    assert await door.by_access_key("AKIADUMMY", HERE) == (NOBODY, ())
    assert await door.without_secret(Caller(address="10.0.0.7", claimed_tenant="studio")) == NOBODY
    for address in ("127.0.0.1", "::1", "", "10.0.0.9"):
        assert (await door.without_secret(Caller(address=address, claimed_tenant="studio"))).tenant == "studio"
    generous = OpenDoor(Proxies(), Wall(), ["films"])
    assert await generous.by_access_key("AKIADUMMY", HERE) == (Principal(buckets=frozenset({"films"})), ())
    made, expires_at = await door.client_token(NOBODY, seconds=60.0, models=None, max_seconds=None, origin="")
    assert (await door.by_secret(made, HERE), expires_at) == (NOBODY, NOW + 60.0)


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True), ("", True), ("10.0.0.1", False), ("::", False),
     ("localhost.example.org", False), ("unknown", False)],
)  # fmt: skip
def test_which_peers_are_on_this_machine(address: str, *, local: bool) -> None:
    assert is_local(address) is local

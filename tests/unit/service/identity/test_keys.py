"""How keys look, and how they are compared."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pytest

from service.identity.keys import MIN_MASTER_CHARS, KeyRecord, Keyring, Master, NewSecret, PresentedKey, parsed
from tests.identities import MASTER, NOW

RING = Keyring(Master(MASTER))


def record_of(secret: NewSecret) -> KeyRecord:
    return KeyRecord(id=secret.id, tenant="studio", name="", prefix="", secret_hmac=secret.digest, created_at=NOW)


def presented(secret: NewSecret) -> PresentedKey:
    key = parsed(secret.key)
    assert key is not None
    return key


def test_a_key_is_found_again_by_its_parts_and_its_secret() -> None:
    secret = RING.new()
    assert re.fullmatch(r"hr_live_[a-z2-7]{20}_[A-Za-z0-9_-]{43}", secret.key)
    assert presented(secret).id == secret.id == secret.access_key
    assert RING.matches(record_of(secret), presented(secret), NOW)
    assert not RING.matches(record_of(RING.new()), presented(secret), NOW)
    assert RING.new().key != RING.new().key


@pytest.mark.parametrize(
    "text",
    ["", "hr_live_", "hr_live_a_b", "sk-123", "hr_live_" + "a" * 20 + "_" + "b" * 42, "hr_live_" + "a" * 20 + "_" + "b" * 43 + "\n",
     "hr_live_" + "A" * 20 + "_" + "b" * 43, " hr_live_" + "a" * 20 + "_" + "b" * 43],
)  # fmt: skip
def test_what_does_not_look_like_a_key_is_none(text: str) -> None:
    assert parsed(text) is None


def test_an_invented_id_is_told_from_one_that_was_made() -> None:
    secret = RING.new()
    assert RING.made(secret.id)
    last = "a" if secret.id[-1] != "a" else "b"
    assert not RING.made(secret.id[:-1] + last)
    first = "a" if secret.id[0] != "a" else "b"
    assert not RING.made(first + secret.id[1:])
    assert not RING.made(secret.id[:-1])
    assert not RING.made("é" * 20)
    assert not Keyring(Master(MASTER + "!")).made(secret.id)


def test_another_master_secret_knows_none_of_the_keys() -> None:
    secret, other = RING.new(), Keyring(Master(MASTER + "!"))
    assert not other.matches(record_of(secret), presented(secret), NOW)
    assert other.signing_secrets(record_of(secret), NOW) != RING.signing_secrets(record_of(secret), NOW)


def test_the_secret_of_a_sigv4_pair_is_derived_and_changes_with_the_version() -> None:
    secret = RING.new()
    record = record_of(secret)
    assert RING.signing_secrets(record, NOW) == (secret.secret_key,)
    renewed = RING.renewed(secret.id, 2)
    rotated = replace(record, secret_hmac=renewed.digest, previous_hmac=secret.digest, previous_until=NOW + 60, version=2)
    assert renewed.secret_key != secret.secret_key
    assert RING.signing_secrets(rotated, NOW) == (renewed.secret_key, secret.secret_key)
    assert RING.signing_secrets(rotated, NOW + 60) == (renewed.secret_key,)
    assert len(secret.secret_key) == 43


def test_the_secret_before_a_rotation_counts_until_the_overlap_is_over() -> None:
    old = RING.new()
    new = RING.renewed(old.id, 2)
    record = replace(record_of(new), previous_hmac=old.digest, previous_until=NOW + 60, version=2)
    assert RING.matches(record, presented(old), NOW)
    assert RING.matches(record, presented(new), NOW)
    assert not RING.matches(record, presented(old), NOW + 60)
    assert RING.matches(record, presented(new), NOW + 60)


@pytest.mark.parametrize(("field", "value"), [("revoked_at", NOW - 1), ("expires_at", NOW)])
def test_a_key_that_has_ended_matches_nothing(field: str, value: float) -> None:
    secret = RING.new()
    ended = replace(record_of(secret), **{field: value})  # type: ignore[arg-type]  # both are times
    assert not RING.matches(ended, presented(secret), NOW)
    assert not ended.usable(NOW)


def test_a_short_master_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match=f"must have at least {MIN_MASTER_CHARS} characters; got 12") as caught:
        Master("planted-here")
    assert "planted" not in str(caught.value)


def test_nothing_prints_a_secret() -> None:
    secret = RING.new()
    told = " ".join(map(repr, (Master(MASTER), RING, secret, record_of(secret), presented(secret))))
    for planted in (MASTER, secret.key[-43:], secret.secret_key, secret.digest):
        assert planted not in told
    with pytest.raises(TypeError):
        pickle.dumps(Master(MASTER))

"""API keys: made, listed, revoked, rolled; and how fast every process learns of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from picopay.access import keyring as keyrings
from picopay.access import rules, service
from picopay.access.errors import ApiKeyInvalid, ApiKeyNotFound
from picopay.access.keyring import Keyring
from picopay.access.model import ApiKey, Caller, KeyWanted, Scope
from picopay.infra.db import Db
from picopay.infra.ids import new_id

BOOTSTRAP = "bootstrap-key"


async def a_key(
    db: Db, scopes: tuple[Scope, ...] = (Scope.CHARGES,), expires_in: timedelta | None = None
) -> tuple[ApiKey, str]:
    wanted = KeyWanted("shop", "acme", frozenset(scopes), live=True, expires_in=expires_in)
    return await service.create(db, wanted)


@pytest.fixture
async def keyring(db: Db) -> AsyncIterator[Keyring]:
    keyring = Keyring(db, await service.pepper(db), BOOTSTRAP)
    yield keyring
    await keyring.close()


@contextmanager
def counted_statements(db: Db) -> Generator[list[str]]:
    statements: list[str] = []

    def note(*args: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event
        statements.append(args[2])

    engine = db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def is_valid(keyring: Keyring, text: str) -> bool:
    try:
        await keyring.caller(text)
    except ApiKeyInvalid:
        return False
    return True


async def test_a_key_is_stored_as_its_digest_alone(db: Db, owner: asyncpg.Connection) -> None:
    key, text = await a_key(db, (Scope.USERS, Scope.CHARGES))
    assert rules.well_formed(text)
    assert (key.name, key.merchant_id) == ("shop", "acme")
    assert key.scopes == {Scope.CHARGES, Scope.USERS}
    assert text.startswith(key.prefix)
    stored = await owner.fetchrow("SELECT * FROM api_keys")
    assert stored is not None
    assert stored["digest"] == rules.digest(await service.pepper(db), text)
    assert text not in str(dict(stored))


async def test_keys_are_listed_with_what_became_of_them(db: Db) -> None:
    assert not await service.any_active(db)
    first, _ = await a_key(db)
    second, _ = await a_key(db, expires_in=timedelta(days=1))
    assert await service.any_active(db)
    revoked = await service.revoke(db, first.id)
    assert revoked.revoked_at is not None
    assert await service.list_all(db) == [revoked, second]
    assert second.expires_at is not None
    assert second.expires_at - second.created_at == timedelta(days=1)
    await service.revoke(db, second.id)
    assert not await service.any_active(db)


async def test_revoking_twice_keeps_the_first_time(db: Db) -> None:
    key, _ = await a_key(db)
    once = await service.revoke(db, key.id)
    assert await service.revoke(db, key.id) == once


async def test_what_is_not_there_cannot_be_revoked_or_rolled(db: Db) -> None:
    with pytest.raises(ApiKeyNotFound):
        await service.revoke(db, new_id())
    with pytest.raises(ApiKeyNotFound):
        await service.roll(db, new_id(), timedelta(hours=1), live=True)


async def test_a_rolled_key_has_a_successor_and_lasts_for_the_overlap(
    db: Db, keyring: Keyring, owner: asyncpg.Connection
) -> None:
    old, old_text = await a_key(db)
    new, new_text = await service.roll(db, old.id, timedelta(hours=1), live=True)
    assert (new.name, new.merchant_id, new.scopes) == (old.name, old.merchant_id, old.scopes)
    assert new.expires_at is None
    assert new_text != old_text
    assert await is_valid(keyring, old_text)
    assert await is_valid(keyring, new_text)
    query = "SELECT expires_at - now() FROM api_keys WHERE id = $1"
    left: timedelta = await owner.fetchval(query, old.id)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


async def test_rolling_never_lengthens_a_keys_life(db: Db) -> None:
    key, _ = await a_key(db, expires_in=timedelta(minutes=5))
    await service.roll(db, key.id, timedelta(hours=1), live=True)
    assert (await service.list_all(db))[0].expires_at == key.expires_at


async def test_rolling_without_overlap_ends_the_old_key_at_once(db: Db, keyring: Keyring) -> None:
    key, text = await a_key(db)
    await service.roll(db, key.id, timedelta(0), live=True)
    assert not await is_valid(keyring, text)


@pytest.mark.parametrize("state", ["revoked", "expired"])
async def test_a_key_that_is_in_force_no_more_cannot_be_rolled(db: Db, state: str) -> None:
    key, _ = await a_key(db, expires_in=timedelta(days=1 if state == "revoked" else -1))
    if state == "revoked":
        await service.revoke(db, key.id)
    with pytest.raises(ApiKeyNotFound, match=state):
        await service.roll(db, key.id, timedelta(hours=1), live=True)


async def test_a_successor_lasts_as_long_as_the_old_key_did(db: Db) -> None:
    old, _ = await a_key(db, expires_in=timedelta(days=1))
    new, _ = await service.roll(db, old.id, timedelta(hours=1), live=True)
    assert old.expires_at is not None
    assert new.expires_at is not None
    assert new.expires_at - new.created_at == old.expires_at - old.created_at


async def test_an_expired_key_calls_nobody(db: Db, keyring: Keyring) -> None:
    _, text = await a_key(db, expires_in=timedelta(seconds=-1))
    assert not await is_valid(keyring, text)
    assert not await service.any_active(db)


async def test_a_new_key_works_at_once_with_its_own_scopes(db: Db, keyring: Keyring) -> None:
    key, text = await a_key(db, (Scope.LEDGER,))
    assert await keyring.caller(text) == Caller(key.id, "acme", frozenset({Scope.LEDGER}))


async def test_the_bootstrap_key_has_every_scope_and_needs_no_database(
    db: Db, keyring: Keyring
) -> None:
    with counted_statements(db) as statements:
        caller = await keyring.caller(BOOTSTRAP)
    assert caller == Caller(None, "default", frozenset(Scope))
    assert statements == []


async def test_a_known_key_costs_no_statement(db: Db, keyring: Keyring) -> None:
    _, text = await a_key(db)
    with counted_statements(db) as statements:
        await keyring.caller(text)
        assert len(statements) == 1
        for _ in range(100):
            await keyring.caller(text)
    assert len(statements) == 1


async def test_noise_costs_no_statement_and_a_wrong_key_one(db: Db, keyring: Keyring) -> None:
    wrong = rules.mint(b"\x07" * rules.SECRET_BYTES, live=True)
    with counted_statements(db) as statements:
        for noise in ("", "pk_live_", "é", wrong[:-1] + "!", BOOTSTRAP + "x"):
            assert not await is_valid(keyring, noise)
        assert statements == []
        for _ in range(10):
            assert not await is_valid(keyring, wrong)
    assert len(statements) == 1


async def test_a_revoked_key_is_refused_within_five_seconds(db: Db, keyring: Keyring) -> None:
    key, text = await a_key(db)
    other, other_text = await a_key(db)
    assert await is_valid(keyring, text)
    assert await is_valid(keyring, other_text)
    await service.revoke(db, key.id)
    started = time.monotonic()
    while await is_valid(keyring, text):
        assert time.monotonic() - started < 5
        await asyncio.sleep(0.05)
    assert (await keyring.caller(other_text)).key_id == other.id


async def test_an_expiring_key_is_refused_within_five_seconds(db: Db, keyring: Keyring) -> None:
    _, text = await a_key(db, expires_in=timedelta(seconds=0.3))
    assert await is_valid(keyring, text)
    started = time.monotonic()
    while await is_valid(keyring, text):
        assert time.monotonic() - started < 5
        await asyncio.sleep(0.05)


async def test_the_last_use_is_recorded(db: Db, owner: asyncpg.Connection) -> None:
    key, text = await a_key(db)
    _, unused = await a_key(db)
    keyring = Keyring(db, await service.pepper(db), None)
    await keyring.caller(text)
    await keyring.close()
    used, never = await service.list_all(db)
    assert (used.id, used.last_used_at is not None) == (key.id, True)
    assert never.last_used_at is None
    assert unused.startswith(never.prefix)

    await owner.execute("UPDATE api_key_uses SET last_used_at = '2020-01-01'")
    keyring = Keyring(db, await service.pepper(db), None)
    await keyring.caller(text)
    await keyring.close()
    assert (await service.list_all(db))[0].last_used_at != used.last_used_at


async def test_guessing_does_not_grow_the_memory_nor_forget_the_known(
    db: Db, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyrings, "SEEN_MAX", 50)
    _, text = await a_key(db)
    assert await is_valid(keyring, text)
    for number in range(200):
        guess = rules.mint(number.to_bytes(rules.SECRET_BYTES, "big"), live=True)
        assert not await is_valid(keyring, guess)
    assert len(vars(keyring)["_seen"]) <= 50
    with counted_statements(db) as statements:
        assert await is_valid(keyring, text)
    assert statements == []


async def test_another_databases_pepper_makes_other_digests(db: Db) -> None:
    _, text = await a_key(db)
    stranger = Keyring(db, b"another pepper", None)
    assert not await is_valid(stranger, text)
    await stranger.close()

"""Use cases of API keys: create, list, revoke, roll."""

import secrets
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from picopay.access import rules, store
from picopay.access.errors import ApiKeyNotFound
from picopay.access.model import ApiKey, Caller, KeyState, KeyWanted, NewKey
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.tx import Tx


async def create(db: Db, wanted: KeyWanted) -> tuple[ApiKey, str]:
    """The new key and its text, which is never to be had again."""
    async with db.begin() as tx:
        return await _insert(tx, wanted)


async def _insert(tx: Tx, wanted: KeyWanted) -> tuple[ApiKey, str]:
    text = rules.mint(secrets.token_bytes(rules.SECRET_BYTES), live=wanted.live)
    digest = rules.digest(await store.pepper(tx), text)
    prefix = text[: rules.SHOWN_CHARS]
    key = NewKey(new_id(), wanted.name, wanted.merchant_id, wanted.scopes, prefix, digest)
    await store.insert_key(tx, key, wanted.expires_in)
    (stored,) = await store.select_keys(tx, key.id)
    return stored, text


async def list_all(db: Db) -> list[ApiKey]:
    return await db.query(store.select_keys)


async def any_active(db: Db) -> bool:
    return await db.query(store.any_active)


async def revoke(db: Db, key_id: UUID) -> ApiKey:
    """In force nowhere within 5 seconds. Raises `ApiKeyNotFound`; revoking twice is no error."""
    async with db.begin() as tx:
        await _find(tx, key_id)
        await store.mark_revoked(tx, key_id)
        return await _find(tx, key_id)


async def roll(db: Db, key_id: UUID, overlap: timedelta, *, live: bool) -> tuple[ApiKey, str]:
    """A successor of the same name, merchant, scopes and lifetime; the old one has `overlap` left.

    Raises `ApiKeyNotFound` for a key that is in force no more.
    """
    async with db.begin() as tx:
        old = await _find(tx, key_id)
        if old.state is not KeyState.ACTIVE:
            raise ApiKeyNotFound(f"key {key_id} is {old.state}: create a new one")
        await store.mark_expiring(tx, key_id, overlap)
        lifetime = old.expires_at - old.created_at if old.expires_at else None
        wanted = KeyWanted(old.name, old.merchant_id, old.scopes, live, lifetime)
        return await _insert(tx, wanted)


async def _find(tx: Tx, key_id: UUID) -> ApiKey:
    found = await store.select_keys(tx, key_id)
    if not found:
        raise ApiKeyNotFound(f"there is no API key {key_id}")
    return found[0]


async def pepper(db: Db) -> bytes:
    return await db.query(store.pepper)


async def callers(db: Db, digests: Collection[bytes]) -> dict[bytes, Caller]:
    """Those of the digests that belong to a key in force now."""
    return await db.query(lambda tx: store.select_callers(tx, digests))


async def record_uses(db: Db, key_ids: Collection[UUID]) -> None:
    async with db.begin() as tx:
        await store.save_uses(tx, key_ids)

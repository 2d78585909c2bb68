"""The SQL of API keys. The database's clock decides what has expired."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from picopay.access.model import ApiKey, Caller, KeyState, NewKey, Scope
from picopay.access.tables import ApiKeys, ApiKeyUses, Installation
from picopay.infra.tx import Tx

_ACTIVE = (
    ApiKeys.revoked_at.is_(None),
    or_(ApiKeys.expires_at.is_(None), ApiKeys.expires_at > func.now()),
)
_STATE = case(
    (ApiKeys.revoked_at.is_not(None), KeyState.REVOKED.value),
    (ApiKeys.expires_at <= func.now(), KeyState.EXPIRED.value),
    else_=KeyState.ACTIVE.value,
)


async def pepper(tx: Tx) -> bytes:
    return (await tx.execute(select(Installation.pepper))).scalar_one()


async def insert_key(tx: Tx, key: NewKey, expires_in: timedelta | None) -> None:
    values = key._asdict() | {"scopes": sorted(key.scopes)}
    expires_at = None if expires_in is None else func.now() + expires_in
    await tx.execute(insert(ApiKeys).values(**values, expires_at=expires_at))


async def select_callers(tx: Tx, digests: Collection[bytes]) -> dict[bytes, Caller]:
    """The callers of those digests that belong to a key in force."""
    columns = (ApiKeys.digest, ApiKeys.id, ApiKeys.merchant_id, ApiKeys.scopes)
    query = select(*columns).where(ApiKeys.digest.in_(digests), *_ACTIVE)
    return {
        row.digest: Caller(row.id, row.merchant_id, frozenset(map(Scope, row.scopes)))
        for row in await tx.execute(query)
    }


async def select_keys(tx: Tx, key_id: UUID | None = None) -> list[ApiKey]:
    query = (
        select(
            ApiKeys.id, ApiKeys.name, ApiKeys.merchant_id, ApiKeys.scopes, ApiKeys.prefix,
            ApiKeys.created_at, ApiKeys.expires_at, ApiKeys.revoked_at, ApiKeyUses.last_used_at,
            _STATE,
        )
        .outerjoin(ApiKeyUses, ApiKeyUses.key_id == ApiKeys.id)
        .order_by(ApiKeys.id)
    )  # fmt: skip
    if key_id is not None:
        query = query.where(ApiKeys.id == key_id)
    rows = (ApiKey(*row) for row in await tx.execute(query))
    return [
        key._replace(scopes=frozenset(map(Scope, key.scopes)), state=KeyState(key.state))
        for key in rows
    ]


async def any_active(tx: Tx) -> bool:
    query = select(ApiKeys.id).where(*_ACTIVE).limit(1)
    return (await tx.execute(query)).scalar_one_or_none() is not None


async def mark_revoked(tx: Tx, key_id: UUID) -> None:
    revoked_at = func.coalesce(ApiKeys.revoked_at, func.now())
    await tx.execute(update(ApiKeys).where(ApiKeys.id == key_id).values(revoked_at=revoked_at))


async def mark_expiring(tx: Tx, key_id: UUID, overlap: timedelta) -> None:
    """In force for `overlap` from now; never longer than before."""
    end = func.least(ApiKeys.expires_at, func.now() + overlap)
    await tx.execute(update(ApiKeys).where(ApiKeys.id == key_id).values(expires_at=end))


async def save_uses(tx: Tx, key_ids: Collection[UUID]) -> None:
    rows = [{"key_id": key_id, "last_used_at": func.now()} for key_id in sorted(key_ids)]
    statement = insert(ApiKeyUses).values(rows)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=[ApiKeyUses.key_id],
            set_={"last_used_at": statement.excluded.last_used_at},
        )
    )

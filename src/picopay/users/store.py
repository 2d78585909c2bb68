"""The SQL of users."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from picopay.infra.tx import Tx
from picopay.users.model import User
from picopay.users.tables import Users


async def insert_absent(tx: Tx, user_id: int) -> bool:
    """Whether the user is new."""
    statement = insert(Users).values(id=user_id).on_conflict_do_nothing().returning(Users.id)
    return (await tx.execute(statement)).scalar_one_or_none() is not None


async def select_user(tx: Tx, user_id: int) -> User | None:
    query = select(Users.id, Users.created_at).where(Users.id == user_id)
    row = (await tx.execute(query)).one_or_none()
    return User(*row) if row else None


async def existing(tx: Tx, user_ids: Collection[int]) -> set[int]:
    return set((await tx.execute(select(Users.id).where(Users.id.in_(user_ids)))).scalars())

"""`POST /charge` as a careful textbook would write it: what PicoPay is compared with.

Synchronous SQLAlchemy in FastAPI's thread pool, one transaction a request, the user's row locked
by SELECT … FOR UPDATE, Redis asked before and told after. It is meant to be right and fair: no
middleware, a connection a thread, nothing slow that is not in the style itself.
"""

import os
import secrets
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException
from models import SessionLocal, Transaction, User
from redis import Redis
from schemas import ChargeIn, ChargeOut
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

CACHE_TTL_SECONDS = 86_400
API_KEY = os.environ["APP_API_KEY"]

app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"])  # pyright: ignore[reportUnknownMemberType]  (redis leaves its options untyped)


def get_session() -> Iterator[Session]:
    with SessionLocal() as session:
        yield session


async def require_api_key(x_api_key: Annotated[str, Header()] = "") -> None:
    """Asynchronous, because it never waits: that spares it a thread."""
    if not secrets.compare_digest(x_api_key.encode(), API_KEY.encode()):
        raise HTTPException(401, "invalid API key")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/charge", dependencies=[Depends(require_api_key)])
def charge(
    body: ChargeIn,
    session: Annotated[Session, Depends(get_session)],
    idempotency_key: Annotated[UUID | None, Header()] = None,
) -> ChargeOut:
    if idempotency_key is None:
        return ChargeOut.of(_charge_once(session, body, None))
    cached = redis.get(f"charge:{idempotency_key}")
    if isinstance(cached, bytes):
        return _checked(ChargeOut.model_validate_json(cached), body)
    row = _find(session, idempotency_key)
    answer = ChargeOut.of(row or _charge_once(session, body, idempotency_key))
    redis.setex(f"charge:{idempotency_key}", CACHE_TTL_SECONDS, answer.model_dump_json())
    return _checked(answer, body)


def _charge_once(session: Session, body: ChargeIn, key: UUID | None) -> Transaction:
    user = session.scalar(select(User).where(User.id == body.user_id).with_for_update())
    if user is None:
        raise HTTPException(404, "user not found")
    if user.balance < body.cents:
        # A twin that was ahead of us may have taken the money: then this is a replay.
        return _replay_or_refuse(session, key, HTTPException(400, "insufficient balance"))
    user.balance -= body.cents
    row = Transaction(
        user_id=user.id,
        amount=body.cents,
        currency=body.currency,
        status="success",
        idempotency_key=key,
        new_balance=user.balance,
    )
    session.add(row)
    try:
        session.commit()
    except IntegrityError:
        session.rollback()  # a twin that was ahead of us has the key
        return _replay_or_refuse(session, key, HTTPException(500, "not stored"))
    return row


def _replay_or_refuse(session: Session, key: UUID | None, refusal: HTTPException) -> Transaction:
    row = _find(session, key) if key is not None else None
    if row is None:
        raise refusal
    return row


def _find(session: Session, key: UUID) -> Transaction | None:
    return session.scalar(select(Transaction).where(Transaction.idempotency_key == key))


def _checked(answer: ChargeOut, body: ChargeIn) -> ChargeOut:
    """The same key must mean the same request."""
    made = answer.transaction
    if (made.user_id, round(made.amount * 100)) != (body.user_id, body.cents):
        raise HTTPException(422, "this idempotency key belongs to another request")
    return answer

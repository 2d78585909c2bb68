"""`POST /orders` as a careful textbook would write it: what PicoPay is compared with.

Asynchronous SQLAlchemy ORM, a session a request from a dependency, repository classes, products
locked by SELECT … FOR UPDATE, an outbox row in the same transaction, a sliding window in Redis.
"""

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Header, HTTPException
from models import IdempotencyKey, Order, OrderItem, Outbox, Product, SessionLocal
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

WINDOW_SECONDS = 60
PER_WINDOW = 5

app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"])  # pyright: ignore[reportUnknownMemberType]  (redis leaves its options untyped)


class ItemIn(BaseModel):
    product_id: UUID
    quantity: int = Field(gt=0)


class OrderIn(BaseModel):
    user_email: str
    items: list[ItemIn] = Field(min_length=1)


class ItemOut(BaseModel):
    id: UUID
    product_id: UUID
    quantity: int
    price_snapshot: int


class OrderOut(BaseModel):
    id: UUID
    user_email: str
    status: str
    items_total: int
    items: list[ItemOut]


class ProductRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_by_ids_for_update(self, ids: list[UUID]) -> dict[UUID, Product]:
        query = select(Product).where(Product.id.in_(ids)).order_by(Product.id).with_for_update()
        return {product.id: product for product in await self._session.scalars(query)}


class OrderRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_by_key(self, key: str) -> tuple[IdempotencyKey, Order] | None:
        found = await self._session.get(IdempotencyKey, key)
        if found is None:
            return None
        query = select(Order).options(selectinload(Order.items)).where(Order.id == found.order_id)
        return found, (await self._session.scalars(query)).one()

    def add(self, order: Order, key: IdempotencyKey, event: Outbox) -> None:
        self._session.add_all([order, key, event])


async def get_session() -> AsyncIterator[AsyncSession]:
    async with SessionLocal() as session:
        yield session


async def limit(email: str) -> None:
    now, key = time.time(), f"rate_limit:orders:{email}"
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zremrangebyscore(key, 0, now - WINDOW_SECONDS)
        pipe.zcard(key)
        pipe.zadd(key, {str(uuid4()): now})
        pipe.expire(key, WINDOW_SECONDS)
        _, count, *_ = await pipe.execute()
    if count >= PER_WINDOW:
        raise HTTPException(429, "rate limit exceeded")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/orders", status_code=201)
async def post_order(
    body: OrderIn,
    session: Annotated[AsyncSession, Depends(get_session)],
    idempotency_key: Annotated[str, Header()],
) -> OrderOut:
    await limit(body.user_email)
    repository = OrderRepository(session)
    fingerprint = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    if (found := await repository.get_by_key(idempotency_key)) is not None:
        if found[0].request_hash != fingerprint:
            raise HTTPException(409, "the key belongs to another order")
        return OrderOut.model_validate(found[1], from_attributes=True)
    order = await _place(body, ProductRepository(session))
    event = {"order_id": str(order.id), "total": order.items_total}
    repository.add(
        order,
        IdempotencyKey(key=idempotency_key, request_hash=fingerprint, order_id=order.id),
        Outbox(event_type="order.created", payload=json.dumps(event)),
    )
    try:
        await session.commit()
    except IntegrityError:
        raise HTTPException(409, "the key is being used") from None
    return OrderOut.model_validate(order, from_attributes=True)


async def _place(body: OrderIn, products: ProductRepository) -> Order:
    found = await products.get_by_ids_for_update([item.product_id for item in body.items])
    order = Order(id=uuid4(), user_email=body.user_email, status="reserved", items_total=0)
    for item in body.items:
        product = found.get(item.product_id)
        if product is None or not product.is_active:
            raise HTTPException(400, "no such product")
        if product.stock < item.quantity:
            raise HTTPException(409, "not enough stock")
        product.stock -= item.quantity
        order.items_total += product.price * item.quantity
        order.items.append(
            OrderItem(
                id=uuid4(),
                product_id=product.id,
                quantity=item.quantity,
                price_snapshot=product.price,
            )
        )
    return order

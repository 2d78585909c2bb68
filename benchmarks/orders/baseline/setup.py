"""Creates the baseline's tables and its products; the ids come from a file."""

import argparse
import asyncio
from pathlib import Path
from uuid import UUID

from models import Base, Product, SessionLocal, engine
from sqlalchemy import insert


async def setup(ids: list[UUID], stock: int) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    rows = [
        {"id": i, "name": f"Product {n}", "price": 2500, "stock": stock, "is_active": True}
        for n, i in enumerate(ids)
    ]
    async with SessionLocal.begin() as session:
        await session.execute(insert(Product), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("products", type=Path)
    parser.add_argument("--stock", type=int, default=2_000_000_000)
    arguments = parser.parse_args()
    ids = [UUID(line) for line in arguments.products.read_text().split()]
    asyncio.run(setup(ids, arguments.stock))


if __name__ == "__main__":
    main()

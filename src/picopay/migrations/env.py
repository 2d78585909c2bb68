"""Alembic's entry point: migrations join the transaction that `picopay.schema` has begun."""

from alembic import context

from picopay import schema
from picopay.infra.db import Base

assert schema.SLICES  # their tables stand in Base.metadata
context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata
)
with context.begin_transaction():
    context.run_migrations()

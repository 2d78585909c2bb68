"""Alembic's entry point: migrations join the transaction that `picopay.schema` has begun."""

from alembic import context

from picopay import schema
from picopay.infra.models import Base

assert len(schema.SLICES) > 0, "their tables stand in Base.metadata"
context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()

"""The SQL of idempotency keys."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from uuid import UUID

from picopay.idempotency.model import KeyId, Operation
from picopay.infra.tx import Tx, texts, uuids

_CLAIM = """
INSERT INTO idempotency_keys (key, merchant_id, operation, resource_id)
SELECT * FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::uuid[])
ON CONFLICT DO NOTHING
RETURNING resource_id
"""

_FIND = """
SELECT k.key, k.merchant_id, k.operation, k.resource_id
  FROM idempotency_keys k
  JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted(key, merchant_id, operation)
 USING (key, merchant_id, operation)
 WHERE k.key = ANY($1::text[])
"""

_GIVE_BACK = """
DELETE FROM idempotency_keys k
 USING unnest($1::text[], $2::text[], $3::text[], $4::uuid[])
       AS mine(key, merchant_id, operation, resource_id)
 WHERE k.key = mine.key AND k.merchant_id = mine.merchant_id AND k.operation = mine.operation
   AND k.resource_id = mine.resource_id AND k.key = ANY($1::text[])
"""


async def insert_absent(tx: Tx, resources: Mapping[KeyId, UUID]) -> AbstractSet[KeyId]:
    """The keys, each of a resource of its own, that were free and now are ours.

    For each that another open transaction has claimed, the database waits for its end.
    """
    *names, ids = _columns(resources)
    rows = await tx.driver.fetch(_CLAIM, *map(texts, names), uuids(ids))
    if len(rows) == len(resources):  # nearly always
        return resources.keys()
    claimed = {resource for (resource,) in rows}
    return {key for key, resource in resources.items() if resource in claimed}


async def find(tx: Tx, keys: Sequence[KeyId]) -> dict[KeyId, UUID]:
    rows = await tx.driver.fetch(_FIND, *zip(*keys, strict=True))
    return {KeyId(key, merchant, Operation(op)): resource for key, merchant, op, resource in rows}


async def delete(tx: Tx, resources: Mapping[KeyId, UUID]) -> None:
    await tx.driver.execute(_GIVE_BACK, *_columns(resources))


def _columns(resources: Mapping[KeyId, UUID]) -> Iterator[tuple[Any, ...]]:
    return zip(*((*key, resources[key]) for key in sorted(resources)), strict=True)

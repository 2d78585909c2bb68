"""Idempotency by claim: the key's row is the lock, the record and the proof at once.

A claim is written in the transaction of its effect, so there is never a key "in progress": a
concurrent claimant waits inside the database, and afterwards either replays or runs.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from picopay.idempotency import store
from picopay.idempotency.model import KeyId
from picopay.infra.tx import Tx


async def claim(tx: Tx, resources: Mapping[KeyId, UUID]) -> dict[KeyId, UUID]:
    """Claim each key for the resource it is about to make.

    Returns the resources of those keys that had made theirs before; all others are ours until
    the transaction ends, and for good if it commits.
    """
    if not resources:
        return {}
    fresh = await store.insert_absent(tx, resources)
    if len(fresh) == len(resources):
        return {}
    return await store.find(tx, sorted(resources.keys() - fresh))


async def find(tx: Tx, keys: Sequence[KeyId]) -> dict[KeyId, UUID]:
    """The resources of those of the keys that have made theirs."""
    return await store.find(tx, keys)


async def give_back(tx: Tx, claimed: Mapping[KeyId, UUID]) -> None:
    """Free our claims of refused commands: a later try, after a top-up, say, may succeed."""
    if claimed:
        await store.delete(tx, claimed)

"""Use cases of charging: commit a batch, look charges up."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError

from picopay.charges import rules, store
from picopay.charges.errors import ChargeNotFound
from picopay.charges.model import (
    Approved,
    Busy,
    Charge,
    ChargeCommand,
    Decision,
    Declined,
    ListedCharge,
    Outcome,
    Replayed,
)
from picopay.charges.store import Filter
from picopay.idempotency import service as idempotency
from picopay.idempotency.model import KeyId
from picopay.infra.chain import Chain
from picopay.infra.db import (
    LOST_DATABASE_SECONDS,
    CommitInDoubt,
    ConnectionLost,
    DatabaseUnavailable,
    Db,
    OutcomeUnknown,
)
from picopay.infra.logs import log
from picopay.infra.tx import Tx
from picopay.ledger import service as ledger
from picopay.ledger.model import AccountId, Posting, user_id_of
from picopay.ledger.rules import Book
from picopay.users import service as users


class MerchantLocked(Exception):
    """A merchant's account is held by somebody else for longer than the pool's lock timeout."""


@dataclass(slots=True)
class _Attempt:
    """What one run of a batch has decided; it counts only once the transaction has committed."""

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    postings: list[Posting] = field(default_factory=list[Posting])


class _NothingToWrite(Exception):
    """Every command of the batch was refused or replayed."""


async def commit_batch(
    db: Db,
    commands: Sequence[ChargeCommand],
    *,
    chain: Chain | None = None,
    lock_timeout_ms: int | None = None,
    patience_seconds: float = LOST_DATABASE_SECONDS,
) -> list[Outcome]:
    """Decide and write a batch in one transaction; the outcomes in the order of the commands.

    The transaction is the next of `chain`, if that is given, or else one that waits for locks for
    `lock_timeout_ms`, by default the pool's. It waits for no payer: those that are locked
    elsewhere come back `Busy`. A lost connection or COMMIT is settled here, by looking again: an
    outcome is either certain or `OutcomeUnknown`. Raises `DatabaseUnavailable` and
    `MerchantLocked`.
    """

    def begin() -> AbstractAsyncContextManager[Tx]:
        return chain.begin() if chain else db.begin(lock_timeout_ms=lock_timeout_ms)

    return await db.retrying(partial(_commit, db, commands, begin), patience_seconds)


async def _commit(
    db: Db, commands: Sequence[ChargeCommand], begin: Callable[[], AbstractAsyncContextManager[Tx]]
) -> list[Outcome]:
    while True:
        attempt = _Attempt()
        try:
            with suppress(_NothingToWrite):
                async with begin() as tx:
                    await _run(tx, commands, attempt)
        except ledger.PayeesMissing as missing:
            await _open(db, missing.account_ids)
            continue
        except CommitInDoubt:
            landed = await _landed(db, attempt.postings[0])
            if landed is None:
                return _doubted(attempt)
            if not landed:
                raise ConnectionLost("the commit did not happen") from None
        return attempt.outcomes


async def _open(db: Db, merchants: Sequence[AccountId]) -> None:
    """A merchant's first charge in a currency. Should that be in doubt, the next run tells."""
    with suppress(CommitInDoubt):
        async with db.begin() as tx:
            await ledger.open_accounts(tx, merchants)


async def _run(tx: Tx, commands: Sequence[ChargeCommand], attempt: _Attempt) -> None:
    payers = await ledger.lock_payers(tx, {command.payer for command in commands})
    at_hand = [c for c in commands if c.payer not in payers.busy] if payers.busy else commands
    claims = rules.claims(at_hand)
    taken = await idempotency.claim(tx, claims)
    known = await _charges_of(tx, taken)
    book = Book(payers.locked, payees={command.merchant for command in at_hand})
    unknown = await users.unknown(tx, {user_id_of(payer.owner) for payer in payers.absent})
    decisions = rules.decide_batch(at_hand, book, claims, known, unknown)
    attempt.outcomes = _in_order(commands, payers.busy, decisions)
    attempt.postings = book.postings
    approved = [d.charge for d in decisions if isinstance(d, Approved)]
    if not approved:
        raise _NothingToWrite  # rolled back, claims and all, as if never asked
    await _write(tx, book, approved)
    if len(approved) < len(decisions):
        ours = {key: resource for key, resource in claims.items() if key not in taken}
        await idempotency.give_back(tx, rules.refused_claims(ours, at_hand, decisions))


async def _write(tx: Tx, book: Book, approved: Sequence[Charge]) -> None:
    """The only statement that touches merchants' accounts: everybody needs them."""
    try:
        await ledger.write(tx, book, store.insertion(approved))
    except asyncpg.LockNotAvailableError as error:
        raise MerchantLocked from error


async def replays(db: Db, commands: Sequence[ChargeCommand]) -> list[Decision | None]:
    """What is decided already, since the command's key was used before: that waits for no lock."""
    keys = sorted({command.key_id for command in commands if command.key_id is not None})
    if not keys:
        return [None] * len(commands)

    async def work(tx: Tx) -> dict[KeyId, Charge]:
        return await _charges_of(tx, await idempotency.find(tx, keys))

    known = await db.query(work)
    made = [known.get(command.key_id) if command.key_id else None for command in commands]
    return [
        rules.replay(command, charge) if charge is not None else None
        for command, charge in zip(commands, made, strict=True)
    ]


async def _charges_of(tx: Tx, taken: dict[KeyId, UUID]) -> dict[KeyId, Charge]:
    if not taken:
        return {}
    merchant_ids = {key.merchant_id for key in taken}
    found = {c.id: c for c in await store.select_by_ids(tx, merchant_ids, set(taken.values()))}
    return {key: found[resource] for key, resource in taken.items()}


def _in_order(
    commands: Sequence[ChargeCommand], busy: Collection[AccountId], decisions: Sequence[Decision]
) -> list[Outcome]:
    if not busy:
        return list(decisions)
    decided = iter(decisions)
    return [Busy() if command.payer in busy else next(decided) for command in commands]


async def _landed(db: Db, posting: Posting) -> bool | None:
    """Whether the batch whose COMMIT was lost is there; None when that cannot be learnt."""
    try:
        return await db.retrying(lambda: ledger.landed(db, posting))
    except (DatabaseUnavailable, DBAPIError, asyncpg.PostgresError):
        return None


def _doubted(attempt: _Attempt) -> list[Outcome]:
    """What may be said of a batch that may or may not have been committed.

    A twin's replay is as doubtful as the charge it replays, and a refusal was decided on balances
    that count doubtful charges. Only replays of older charges are certain.
    """
    doubtful = {posting.move.id for posting in attempt.postings}
    told: list[Outcome] = []
    for outcome in attempt.outcomes:
        match outcome:
            case Approved(charge) | Replayed(charge) if charge.id in doubtful:
                log.error("charge.outcome_unknown", charge_id=str(charge.id))
                told.append(Declined(OutcomeUnknown("charge", charge.id)))
            case Declined():
                told.append(Declined(DatabaseUnavailable("the database was lost; try again")))
            case _:
                told.append(outcome)
    return told


async def show(db: Db, merchant_id: str, charge_id: UUID) -> ListedCharge:
    """Raises `ChargeNotFound`, for other merchants' charges too."""
    found = await db.query(lambda tx: store.select_charge(tx, merchant_id, charge_id))
    if found is None:
        raise ChargeNotFound(charge_id)
    return found


async def page(db: Db, merchant_id: str, wanted: Filter, limit: int) -> list[ListedCharge]:
    """Newest first; one more than `limit` tells that there are more."""
    return await db.query(lambda tx: store.select_page(tx, merchant_id, wanted, limit + 1))

"""Use cases about users: creating them, depositing to them, looking at them."""

from collections.abc import Collection
from typing import Final

from picopay.idempotency import service as idempotency
from picopay.idempotency.errors import KeyReused
from picopay.idempotency.model import KeyId, Operation
from picopay.infra.db import (
    CommitInDoubt,
    ConnectionLost,
    DatabaseUnavailable,
    Db,
    OutcomeUnknown,
)
from picopay.infra.logs import log
from picopay.infra.tx import Tx
from picopay.kernel.money import Money
from picopay.ledger import service as ledger
from picopay.ledger.model import WORLD, Account, AccountId, Move, Posting, PostingKind, user_owner
from picopay.ledger.rules import Book
from picopay.users import rules, store
from picopay.users.errors import UserNotFound
from picopay.users.model import Deposit, DepositCommand, User

LOCK_TIMEOUT_MS: Final = 5_000


async def create(db: Db, user_id: int) -> tuple[User, bool]:
    """The user, and whether this call made it: creating twice is not an error."""

    async def work() -> tuple[User, bool]:
        async with db.begin() as tx:
            created = await store.insert_absent(tx, user_id)
            user = await store.select_user(tx, user_id)
        assert user is not None
        return user, created

    return await db.retrying(work)


async def show(db: Db, user_id: int) -> tuple[User, list[Account]]:
    """Raises `UserNotFound`."""

    async def work(tx: Tx) -> tuple[User, list[Account]]:
        user = await store.select_user(tx, user_id)
        if user is None:
            raise UserNotFound(user_id)
        return user, await ledger.balances(tx, user_owner(user_id))

    return await db.query(work)


async def unknown(tx: Tx, user_ids: Collection[int]) -> set[int]:
    """Those of the ids that no user has."""
    return set(user_ids) - await store.existing(tx, user_ids) if user_ids else set()


async def deposit(db: Db, command: DepositCommand) -> Deposit:
    """Money from outside, once for each key. Raises `UserNotFound`, `KeyReused`, `AccountLimit`.

    When the answer of COMMIT is lost, the same transaction is run again: under the key of the
    client, or else the deposit's own id, it finds what the first one made. Raises
    `OutcomeUnknown` when the database stays lost.
    """
    in_doubt = False

    async def work() -> Deposit:
        nonlocal in_doubt
        try:
            return await _deposit(db, command)
        except CommitInDoubt as error:
            in_doubt = True
            raise ConnectionLost(str(error)) from error

    try:
        made = await db.retrying(work)
    except DatabaseUnavailable:
        if in_doubt:
            raise OutcomeUnknown("deposit", command.id) from None
        raise
    event = "deposit.replayed" if made.replayed else "deposit.succeeded"
    log.info(event, deposit_id=str(made.id), user_id=made.user_id)
    return made


async def _deposit(db: Db, command: DepositCommand) -> Deposit:
    key = KeyId(command.key or str(command.id), command.merchant_id, Operation.DEPOSIT)
    async with db.begin(lock_timeout_ms=LOCK_TIMEOUT_MS) as tx:
        known = await idempotency.claim(tx, {key: command.id})
        if key in known:
            return _replay(command, await ledger.find_posting(tx, WORLD, known[key]))
        if await unknown(tx, [command.user_id]):
            raise UserNotFound(command.user_id)
        user = AccountId(user_owner(command.user_id), command.money.currency)
        world = AccountId(WORLD, command.money.currency)
        # Users before shared accounts: the one lock order.
        accounts = [*await ledger.lock_or_open(tx, [user]), *await ledger.lock_or_open(tx, [world])]
        book = Book(accounts)
        posting = book.post(Move(command.id, PostingKind.DEPOSIT, world, user, command.money.minor))
        await ledger.write(tx, book)
    return _made(command, posting, replayed=False)


def _replay(command: DepositCommand, posting: Posting) -> Deposit:
    if different := rules.mismatches(command, posting):
        raise KeyReused(different)
    return _made(command, posting, replayed=True)


def _made(command: DepositCommand, posting: Posting, *, replayed: bool) -> Deposit:
    money = Money(posting.move.minor, posting.move.credit.currency)
    return Deposit(posting.move.id, command.user_id, money, posting.credit_balance, replayed)

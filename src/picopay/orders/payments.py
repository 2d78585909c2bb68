"""Use cases of the saga: each is one transaction, may be repeated, and tells what came of it."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.tx import Tx
from picopay.ledger.errors import InsufficientFunds
from picopay.ledger.model import AccountId, user_owner
from picopay.orders import rules, saga, store
from picopay.orders.errors import RefundInProgress, RefundNotFound
from picopay.orders.model import (
    OPEN,
    Happened,
    Payment,
    PaymentStatus,
    Provider,
    Refund,
    RefundFilter,
    RefundStatus,
    Step,
    Stored,
    Word,
)
from picopay.orders.rules import REPEATED, Busy, Compensate, Ignore, Pay, Settlement
from picopay.orders.saga import Paying
from picopay.outbox.model import Note, Resolution

# Why orders are canceled, beside what `rules` knows.
TIMED_OUT: str = "the payment did not come"
GIVEN_UP: str = "the payment could not be requested"
UNCOVERED: str = "the balance does not cover it"
_BY_HAND = Note("admin", Resolution.DISCARDED, "a person has given the money back")
_NO_PROVIDER = Ignore("the order is paid from a wallet")


async def settle(db: Db, word: Word) -> Settlement:
    """A provider's word, from a callback or because it was asked.

    Raises `OrderNotFound` and `PaymentOfAnotherOrder`.
    """

    async def work() -> Settlement:
        async with db.begin(lock_timeout_ms=saga.LOCK_TIMEOUT_MS) as tx:
            stored = await saga.lock(tx, word.order_id)
            if stored.provider is Provider.WALLET:
                return _NO_PROVIDER
            return await saga.settle(tx, stored, word.payment_id, word.result)

    settlement = await db.retrying(work)
    count(settlement)
    return settlement


async def settle_together(db: Db, words: Sequence[Word]) -> list[Settlement | Busy | None]:
    """Pay the orders that are paid by this, in one transaction, and tell what was told before.

    `Busy` for each whose order another has locked, or an earlier word in other words is about, or
    nobody knows.
    None for each that means something else, and has to be settled by itself. A COMMIT whose answer
    was lost is run again: it finds what the first one made.
    """

    async def work(tx: Tx) -> list[Settlement | Busy | None]:
        return await _settle_together(tx, words)

    settled = await db.repeating(work, lock_timeout_ms=saga.LOCK_TIMEOUT_MS)
    for settlement in settled:
        if settlement is not None and not isinstance(settlement, Busy):
            count(settlement)
    return settled


async def _settle_together(tx: Tx, words: Sequence[Word]) -> list[Settlement | Busy | None]:
    first = {word.order_id: word for word in reversed(words)}
    found = await store.select_orders(tx, first, lock=True, skip_locked=True)
    known = await store.select_payments(tx, found)
    meant = {
        order_id: _meaning(stored, known[order_id].get(first[order_id].payment_id), first[order_id])
        for order_id, stored in found.items()
    }
    pays = {i: first[i].payment_id for i, meaning in meant.items() if isinstance(meaning, Pay)}
    new = {i: payment_id for i, payment_id in pays.items() if payment_id not in known[i]}
    strangers = await saga.strangers(tx, new)
    settled: dict[UUID, Settlement | Busy | None] = {**meant, **dict.fromkeys(strangers)}
    if paid := [Paying(found[i], pays[i], found[i].payer) for i in pays if i not in strangers]:
        await saga.pay(tx, paid)
    return [_answer(word, first, settled) for word in words]


def _answer(
    word: Word, first: Mapping[UUID, Word], settled: dict[UUID, Settlement | Busy | None]
) -> Settlement | Busy | None:
    """To the first word about an order what it means, to its repeats that it was said before."""
    if word != first[word.order_id] or word.order_id not in settled:
        return Busy()
    settlement = settled[word.order_id]
    if isinstance(settlement, Pay):
        settled[word.order_id] = Ignore(REPEATED)
    elif settlement is None:
        settled[word.order_id] = Busy()
    return settlement


def _meaning(stored: Stored, payment: Payment | None, word: Word) -> Settlement | None:
    """Of a word that pays, or changes nothing; None for any other."""
    if stored.provider is Provider.WALLET:
        return _NO_PROVIDER
    settlement = rules.settle(stored.order, payment, word.payment_id, word.result)
    told_before = payment is not None and payment.status is not PaymentStatus.PENDING
    changes_nothing = isinstance(settlement, Ignore) and told_before
    return settlement if isinstance(settlement, Pay) or changes_nothing else None


def told(order_id: UUID, settlement: Settlement) -> dict[str, str]:
    """For log lines."""
    return {"order_id": str(order_id), "settlement": type(settlement).__name__.lower()}


def count(settlement: Settlement) -> None:
    match settlement:
        case Pay():
            metrics.orders_paid.inc()
        case Compensate():
            metrics.orders_canceled.inc()
        case Ignore(why):
            metrics.payments_ignored.labels(why).inc()
        case _:
            metrics.order_refunds.labels("requested").inc()


async def waited_seconds(db: Db, order_id: UUID, payment_id: str) -> float | None:
    """How old the order is, open or not, whose payment the provider has not told of; else None."""
    return await db.query(lambda tx: store.select_waited_seconds(tx, order_id, payment_id))


async def time_out(db: Db, order_id: UUID) -> bool:
    """Cancel an order whose payment did not come; False if it was closed before."""
    return await _close(db, order_id, Step(Happened.PAYMENT_TIMED_OUT), TIMED_OUT)


async def _close(db: Db, order_id: UUID, step: Step, why: str) -> bool:
    async with db.begin() as tx:
        order = (await saga.lock(tx, order_id)).order
        if order.status not in OPEN:
            return False
        await saga.cancel(tx, order, step, Step(Happened.CANCELED, why))
    metrics.orders_canceled.inc()
    return True


async def give_up(tx: Tx, order_id: UUID) -> bool:
    """The provider could not be asked. Should it hold a payment all the same, that is returned."""
    order = (await saga.lock(tx, order_id)).order
    if order.status not in OPEN:
        return False
    steps = Step(Happened.PAYMENT_GIVEN_UP), Step(Happened.CANCELED, GIVEN_UP)
    await saga.cancel(tx, order, *steps)
    return True


async def pay_from_wallet(tx: Tx, order_id: UUID) -> Settlement:
    """From the user's balance: paid, or canceled for want of money, in one transaction."""
    stored = await saga.lock(tx, order_id)
    order, payment_id = stored.order, f"wallet_{order_id}"
    if order.status not in OPEN:
        return Ignore("the order was closed before")
    assert order.user_id is not None
    payer = AccountId(user_owner(order.user_id), order.total.currency)
    try:
        await saga.pay(tx, [Paying(stored, payment_id, payer)])
    except InsufficientFunds:
        await saga.fail(tx, order, payment_id, UNCOVERED)
        return Compensate(UNCOVERED)
    return Pay()


async def refund_due(db: Db, order_id: UUID, payment_id: str) -> Refund | None:
    """What is to be given back; None if it was. Raises `PaymentOfAnotherOrder`."""
    async with db.begin() as tx:
        refund = await store.lock_refund(tx, order_id, payment_id)
        await saga.check_ours(tx, order_id, payment_id)
        if refund is not None and refund.status is RefundStatus.FAILED:
            # Tried again: meanwhile no person may do the same.
            await store.save_refund(tx, refund, RefundStatus.REQUESTED)
            await store.tell(tx, order_id, Step(Happened.REFUND_REQUESTED, payment_id))
    return None if refund is None or refund.status is RefundStatus.SUCCEEDED else refund


async def refunded(db: Db, order_id: UUID, payment_id: str) -> None:
    """The provider has given the money back; a second word changes nothing."""
    async with db.begin() as tx:
        stored = await saga.lock(tx, order_id)
        refund = await store.lock_refund(tx, order_id, payment_id)
        if refund is None or refund.status is RefundStatus.SUCCEEDED:
            return
        await saga.refunded(tx, stored, refund)
    metrics.order_refunds.labels("succeeded").inc()


async def returned(db: Db, order_id: UUID, payment_id: str) -> Refund:
    """A person has given the money back, since no provider could; repeats change nothing.

    The dead letter that told of it is discarded with that.

    Raises `RefundNotFound`, `RefundInProgress`, `PaymentOfAnotherOrder` and `OrderNotFound`.
    """
    async with db.begin(lock_timeout_ms=saga.LOCK_TIMEOUT_MS) as tx:
        stored = await saga.lock(tx, order_id)
        refund = await store.lock_refund(tx, order_id, payment_id)
        if refund is None:
            raise RefundNotFound(order_id, payment_id)
        if refund.status is RefundStatus.REQUESTED:
            raise RefundInProgress("the provider is still being asked for it")
        await saga.check_ours(tx, order_id, payment_id)
        if is_new := refund.status is RefundStatus.FAILED:
            await saga.refunded(tx, stored, refund)
        await saga.forget_asking(tx, refund, _BY_HAND)
    if is_new:
        metrics.order_refunds.labels("succeeded").inc()
    return refund._replace(status=RefundStatus.SUCCEEDED)


async def refunds(db: Db, wanted: RefundFilter, limit: int) -> list[Refund]:
    """Of the newest orders first; one more than `limit` tells that there are more."""
    return await db.query(lambda tx: store.select_refunds(tx, wanted, limit + 1))


async def refund_failed(tx: Tx, order_id: UUID, payment_id: str) -> None:
    """Nobody will try again by himself: it stands in the timeline, and as a dead letter."""
    await saga.lock(tx, order_id)
    refund = await store.lock_refund(tx, order_id, payment_id)
    if refund is not None and refund.status is not RefundStatus.SUCCEEDED:
        await store.save_refund(tx, refund, RefundStatus.FAILED)
        await store.tell(tx, order_id, Step(Happened.REFUND_FAILED, payment_id))

"""Use cases of the saga: each is one transaction, may be repeated, and tells what came of it."""

from collections.abc import Sequence
from uuid import UUID

from picopay.infra import metrics
from picopay.infra.db import CommitInDoubt, ConnectionLost, Db
from picopay.infra.tx import Tx
from picopay.ledger.errors import InsufficientFunds
from picopay.ledger.model import AccountId, user_owner
from picopay.orders import rules, saga, store
from picopay.orders.model import (
    OPEN,
    Happened,
    Payment,
    PaymentStatus,
    Provider,
    Refund,
    RefundStatus,
    Status,
    Step,
    Stored,
    Word,
)
from picopay.orders.rules import Busy, Compensate, Ignore, Pay, Settlement
from picopay.orders.saga import Paying

FREE: str = "free"  # the payment of an order that costs nothing
_NO_PROVIDER = Ignore("the order is paid from a wallet")


async def ask(db: Db, order_id: UUID, timeout_seconds: float) -> Stored | None:
    """Let the order wait for its payment; None if nobody has to be asked for it."""
    async with db.begin() as tx:
        stored = await saga.lock(tx, order_id)
        if stored.order.status not in OPEN:
            return None
        free = stored.order.total.minor == 0
        if free:
            await saga.pay(tx, [Paying(stored, FREE, stored.payer)])
        elif stored.order.status is Status.RESERVED:
            await saga.ask_for_payment(tx, stored.order, timeout_seconds)
    if free:
        metrics.orders_paid.inc()
    asks = not free and stored.provider is Provider.FAKE and stored.order.payment_id is None
    return stored if asks else None


async def bind(db: Db, order_id: UUID, payment_id: str) -> None:
    """The provider has begun a payment; its callback may have been here before."""
    async with db.begin() as tx:
        await saga.bind(tx, (await saga.lock(tx, order_id)).order, payment_id)


async def settle(db: Db, word: Word) -> Settlement:
    """A provider's word, from a callback or because it was asked. Raises `OrderNotFound`."""
    async with db.begin(lock_timeout_ms=saga.LOCK_TIMEOUT_MS) as tx:
        stored = await saga.lock(tx, word.order_id)
        if stored.provider is Provider.WALLET:
            return _NO_PROVIDER
        settlement = await saga.settle(tx, stored, word.payment_id, word.result)
    count(settlement)
    return settlement


async def settle_together(db: Db, words: Sequence[Word]) -> list[Settlement | Busy | None]:
    """Pay the orders that are paid by this, in one transaction, and tell what was told before.

    `Busy` for each whose order another has locked, or an earlier word is about, or nobody knows.
    None for each that means something else, and has to be settled by itself. A COMMIT whose answer
    was lost is run again: it finds what the first one made.
    """

    async def work() -> list[Settlement | Busy | None]:
        try:
            async with db.begin(lock_timeout_ms=saga.LOCK_TIMEOUT_MS) as tx:
                return await _settle_together(tx, words)
        except CommitInDoubt as error:
            raise ConnectionLost(str(error)) from error

    settled = await db.retrying(work)
    for settlement in settled:
        if settlement is not None and not isinstance(settlement, Busy):
            count(settlement)
    return settled


async def _settle_together(tx: Tx, words: Sequence[Word]) -> list[Settlement | Busy | None]:
    first = {word.order_id: word for word in reversed(words)}
    found = await store.select_orders(tx, first, lock=True, skip_locked=True)
    known = await store.select_payments(tx, found)
    settled: dict[UUID, Settlement | None] = {}
    paid: list[Paying] = []
    for order_id, stored in found.items():
        word = first[order_id]
        settlement = _meaning(stored, known[order_id].get(word.payment_id), word)
        settled[order_id] = settlement
        if isinstance(settlement, Pay):
            paid.append(Paying(stored, word.payment_id, stored.payer))
    if paid:
        await saga.pay(tx, paid)
    return [settled.pop(word.order_id, Busy()) for word in words]


def _meaning(stored: Stored, payment: Payment | None, word: Word) -> Settlement | None:
    """Of a word that pays, or changes nothing; None for any other."""
    if stored.provider is Provider.WALLET:
        return _NO_PROVIDER
    settlement = rules.settle(stored.order, payment, word.payment_id, word.result)
    told_before = payment is not None and payment.status is not PaymentStatus.PENDING
    changes_nothing = isinstance(settlement, Ignore) and told_before
    return settlement if isinstance(settlement, Pay) or changes_nothing else None


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


async def is_unsettled(db: Db, order_id: UUID, payment_id: str) -> bool:
    """Whether the provider has not told yet what became of it, be the order open or not."""
    payments = await db.query(lambda tx: store.select_payments(tx, [order_id]))
    return payments[order_id][payment_id].status is PaymentStatus.PENDING


async def time_out(db: Db, order_id: UUID) -> bool:
    """Cancel an order whose payment did not come; False if it was closed before."""
    return await _close(db, order_id, Step(Happened.PAYMENT_TIMED_OUT), "the payment did not come")


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
    why = "the payment could not be requested"
    steps = Step(Happened.PAYMENT_GIVEN_UP), Step(Happened.CANCELED, why)
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
        await saga.fail(tx, order, payment_id, "the balance does not cover it")
        return Compensate()
    return Pay()


async def refund_due(db: Db, order_id: UUID, payment_id: str) -> Refund | None:
    """What is to be given back; None if it was."""
    async with db.begin() as tx:
        refund = await store.lock_refund(tx, order_id, payment_id)
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


async def refund_failed(tx: Tx, order_id: UUID, payment_id: str) -> None:
    """Nobody will try again by himself: it stands in the timeline, and as a dead letter."""
    await saga.lock(tx, order_id)
    refund = await store.lock_refund(tx, order_id, payment_id)
    if refund is not None and refund.status is not RefundStatus.SUCCEEDED:
        await store.save_refund(tx, refund, RefundStatus.FAILED)
        await store.tell(tx, order_id, Step(Happened.REFUND_FAILED, payment_id))

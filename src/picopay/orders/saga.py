"""What happens to one order after it was placed: each function joins a caller's transaction.

The order's row is locked first, then what names its payment, then products, then accounts: the one
lock order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from picopay.catalog import service as catalog
from picopay.idempotency import service as idempotency
from picopay.idempotency.model import KeyId, Operation
from picopay.infra import tracing
from picopay.infra.ids import new_id
from picopay.infra.json import dump
from picopay.infra.logs import request_id_var
from picopay.infra.tx import Tx
from picopay.kernel.money import Money
from picopay.ledger import service as ledger
from picopay.ledger.model import Account, AccountId, Move, PostingKind, is_user
from picopay.ledger.rules import Book
from picopay.orders import rules, store
from picopay.orders.errors import OrderNotFound, PaymentOfAnotherOrder
from picopay.orders.model import (
    KEYS_OF,
    OPEN,
    POLL,
    POLL_SECONDS,
    REFUND,
    TIMEOUT,
    Ask,
    Happened,
    Name,
    Order,
    Payment,
    PaymentStatus,
    Provider,
    Refund,
    RefundStatus,
    Result,
    Status,
    Step,
    Stored,
    Timer,
    aggregate_of,
)
from picopay.orders.rules import Compensate, GiveBack, Ignore, Pay, Settlement
from picopay.outbox import dead_letters
from picopay.outbox import service as outbox
from picopay.outbox.model import NewEvent, Note

# For requests; workers come back later, and let go sooner.
LOCK_TIMEOUT_MS: Final = 1_000
PAYMENTS_MAX: Final = 100  # of an order, and more only if they bring money


class Paying(NamedTuple):
    """An order that is locked, and what pays it."""

    stored: Stored
    payment_id: str
    payer: AccountId


async def lock(tx: Tx, order_id: UUID) -> Stored:
    """Raises `OrderNotFound`."""
    found = await store.select_orders(tx, [order_id], lock=True)
    if order_id not in found:
        raise OrderNotFound(order_id)
    return found[order_id]


async def ask_for_payments(
    tx: Tx, orders: Sequence[Order], asks: Iterable[Ask], timeout_seconds: float
) -> None:
    """From now on the orders wait for their payments, and not for ever."""
    await tx.write(*store.asked(orders))
    timers = [_event(ask.order_id, TIMEOUT, timeout_seconds, ask.origin) for ask in asks]
    await outbox.append(tx, timers)


async def is_asked_unheard(tx: Tx, stored: Stored) -> bool:
    """Whether the provider was asked, and no payment of the order is known."""
    if stored.provider is not Provider.FAKE:
        return False
    payments = (await store.select_payments(tx, [stored.order.id]))[stored.order.id]
    return not payments and await store.has_happened(
        tx, stored.order.id, Happened.PAYMENT_REQUESTED
    )


async def strangers(tx: Tx, named: Mapping[UUID, str]) -> set[UUID]:
    """Which of the orders name a payment that the provider has made for another one."""
    keys = {order_id: _key_of(payment_id) for order_id, payment_id in named.items()}
    owners = await idempotency.find(tx, sorted(keys.values())) if keys else {}
    return {order_id for order_id, key in keys.items() if owners.get(key, order_id) != order_id}


async def check_ours(tx: Tx, order_id: UUID, payment_id: str) -> None:
    """Raises `PaymentOfAnotherOrder`."""
    if await strangers(tx, {order_id: payment_id}):
        raise PaymentOfAnotherOrder(payment_id)


def _key_of(payment_id: str) -> KeyId:
    return KeyId(payment_id, KEYS_OF, Operation.PAYMENT)


async def bind(tx: Tx, orders: Mapping[UUID, Order], names: Sequence[Name]) -> set[UUID]:
    """The provider has named its payments; should it never tell more of one, it will be asked.

    One name for each of the orders. Returned are those whose payment is another order's.
    """
    claims: dict[KeyId, UUID] = {}
    for name in names:
        claims.setdefault(_key_of(name.payment_id), name.order_id)
    owners = claims | await idempotency.claim(tx, claims)
    ours = [name for name in names if owners[_key_of(name.payment_id)] == name.order_id]
    known = await store.select_payments(tx, [name.order_id for name in ours])
    # Of the others the callback was faster.
    if new := [name for name in ours if name.payment_id not in known[name.order_id]]:
        bound = [(orders[name.order_id], name.payment_id) for name in new]
        awaiting = [(o, payment) for o, payment in bound if o.status in OPEN and not o.payment_id]
        await tx.write(*store.named(new, awaiting))
        polls = [_event(n.order_id, POLL, POLL_SECONDS, n.origin, n.payment_id) for n in new]
        await outbox.append(tx, polls)
    return {name.order_id for name in names}.difference(name.order_id for name in ours)


async def settle(tx: Tx, stored: Stored, payment_id: str, result: Result) -> Settlement:
    """What a provider says of a payment, as `rules.settle` decides.

    Raises `PaymentOfAnotherOrder`.
    """
    order_id = stored.order.id
    known = (await store.select_payments(tx, [order_id]))[order_id]
    payment = known.get(payment_id)
    if payment is None:
        await check_ours(tx, order_id, payment_id)
        if result is Result.FAILED and len(known) >= PAYMENTS_MAX:
            return Ignore(rules.ANOTHER)  # what brings no money need not be kept for ever
    settlement = rules.settle(stored.order, payment, payment_id, result)
    match settlement:
        case Pay():
            await pay(tx, [Paying(stored, payment_id, stored.payer)])
        case GiveBack():
            await give_back(tx, stored, payment_id)
        case Compensate(why):
            await fail(tx, stored.order, payment_id, why)
        case Ignore():
            if payment is None or payment.status is PaymentStatus.PENDING:
                failed = Payment(payment_id, PaymentStatus.FAILED)
                await store.save_payment(tx, stored.order.id, failed)
                await store.tell(tx, stored.order.id, Step(Happened.PAYMENT_FAILED, payment_id))
    return settlement


async def pay(tx: Tx, payings: Sequence[Paying]) -> None:
    """Of orders that are open. Raises `InsufficientFunds` when a payer may not owe."""
    costly = [paying for paying in payings if paying.stored.order.total.minor]
    book = Book(await _lock(tx, [a for p in costly for a in (p.payer, p.stored.shop)]))
    postings: dict[UUID, UUID] = {}
    for payer, stored in ((paying.payer, paying.stored) for paying in costly):
        minor = stored.order.total.minor
        move = Move(new_id(), PostingKind.ORDER_PAYMENT, payer, stored.shop, minor)
        postings[stored.order.id] = book.post(move).move.id
    parts = store.paid(
        [(p.stored.order, p.payment_id, postings.get(p.stored.order.id)) for p in payings]
    )
    await (ledger.write(tx, book, *parts) if costly else tx.write(*parts))


async def fail(tx: Tx, order: Order, payment_id: str, why: str) -> None:
    await store.save_payment(tx, order.id, Payment(payment_id, PaymentStatus.FAILED))
    reason = Step(Happened.CANCELED, why)
    bound = order._replace(payment_id=payment_id)
    await cancel(tx, bound, Step(Happened.PAYMENT_FAILED, payment_id), reason)


async def cancel(tx: Tx, order: Order, *steps: Step) -> None:
    """Of an order that is open: its stock goes back, once."""
    await catalog.lock_products(tx, {item.product_id for item in order.items}, wait=True)
    await catalog.move_stock(tx, rules.returns(order))
    await store.save(tx, order, Status.CANCELED, order.payment_id)
    await store.tell(tx, order.id, *steps)


async def give_back(tx: Tx, stored: Stored, payment_id: str) -> None:
    """The money is booked as it came, and asked back."""
    order = stored.order
    kind, payer = PostingKind.ORDER_PAYMENT, stored.payer
    posting_id = await _post(tx, kind, payer, stored.shop, order.total)
    succeeded = Payment(payment_id, PaymentStatus.SUCCEEDED)
    await store.save_payment(tx, order.id, succeeded, posting_id)
    await store.insert_refund(tx, order.id, payment_id)
    await store.tell(
        tx,
        order.id,
        Step(Happened.PAYMENT_SUCCEEDED, payment_id),
        Step(Happened.REFUND_REQUESTED, payment_id),
    )
    await outbox.append(tx, [_event(order.id, REFUND, 0, current_origin(), payment_id)])


async def refunded(tx: Tx, stored: Stored, refund: Refund) -> None:
    """The provider has given the money back."""
    kind, amount = PostingKind.ORDER_REFUND, refund.amount
    posting_id = await _post(tx, kind, stored.shop, stored.payer, amount)
    await store.save_refund(tx, refund, RefundStatus.SUCCEEDED, posting_id)
    await store.tell(tx, stored.order.id, Step(Happened.REFUNDED, refund.payment_id))


async def forget_asking(tx: Tx, refund: Refund, note: Note) -> None:
    """The request for it that was given up is of no use any more."""
    event = _event(refund.order_id, REFUND, 0, None, refund.payment_id)
    await dead_letters.discard(tx, event, note)


async def _post(
    tx: Tx, kind: PostingKind, debit: AccountId, credit: AccountId, amount: Money
) -> UUID | None:
    """None when there is nothing to pay."""
    if amount.minor == 0:
        return None
    book = Book(await _lock(tx, {debit, credit}))
    posting = book.post(Move(new_id(), kind, debit, credit, amount.minor))
    await ledger.write(tx, book)
    return posting.move.id


async def _lock(tx: Tx, accounts: Iterable[AccountId]) -> list[Account]:
    """Users before shared accounts, and those by name: the one lock order."""
    wanted = set(accounts)
    users = {account for account in wanted if is_user(account.owner)}
    return [*await ledger.lock_or_open(tx, users), *await ledger.lock_or_open(tx, wanted - users)]


def current_origin() -> str | None:
    """What events keep of the request at work."""
    return tracing.origin(request_id_var.get())


def _event(
    order_id: UUID,
    timer: Timer,
    delay_seconds: float,
    origin: str | None,
    payment_id: str | None = None,
) -> NewEvent:
    return NewEvent(
        new_id(),
        timer.type,
        aggregate_of(order_id),
        (timer.consumer,),
        dump({"order_id": order_id, "payment_id": payment_id}),
        delay_seconds,
        request_id=origin,
    )

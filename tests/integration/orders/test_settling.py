"""What providers say of many payments at once is booked together, and each means what it means."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from uuid import UUID

import asyncpg
import pytest

from picopay.catalog import service as catalog
from picopay.catalog.model import NewProduct
from picopay.cli.ledger import verify
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.errors import Overloaded
from picopay.kernel.money import Money
from picopay.orders import asking, payments, service
from picopay.orders.batcher import ALONE_MAX, ALONE_SECONDS_MAX, Settler
from picopay.orders.errors import (
    OrderNotFound,
    PaymentOfAnotherOrder,
    RefundInProgress,
    RefundNotFound,
)
from picopay.orders.handlers import refund_failed
from picopay.orders.model import (
    REFUND,
    Line,
    OrderCommand,
    Provider,
    RefundStatus,
    Result,
    Shop,
    Word,
)
from picopay.orders.rules import REPEATED, Compensate, GiveBack, Ignore, Made, Pay
from picopay.orders.saga import PAYMENTS_MAX
from picopay.outbox import dead_letters
from picopay.outbox import service as outbox
from picopay.outbox.bell import Bell
from picopay.outbox.consumer import Consumer
from picopay.outbox.model import Chosen, Holder, Reason
from picopay.outbox.rules import Bury

SHOP = Shop(Provider.FAKE, "USD")
ORDERS = 20


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
async def settler(db: Db, bell: Bell) -> AsyncIterator[Settler]:
    settler = Settler(db, bell)
    yield settler
    await settler.close()


@pytest.fixture
async def orders(db: Db) -> list[UUID]:
    product = NewProduct(new_id(), "Lamp", Money(250, "USD"), ORDERS, is_active=True)
    await catalog.create(db, [product])
    commands = [
        OrderCommand(new_id(), "ada@example.com", (Line(product.id, 1),), str(new_id()))
        for _ in range(ORDERS)
    ]
    outcomes = await service.place_batch(db, SHOP, commands)
    return [outcome.order.id for outcome in outcomes if isinstance(outcome, Made)]


def paid(order_id: UUID) -> Word:
    return Word(order_id, f"payment-of-{order_id}", Result.SUCCESS)


def failed(order_id: UUID) -> Word:
    return paid(order_id)._replace(result=Result.FAILED)


async def named(db: Db) -> dict[str, list[str]]:
    return {report.name: report.named for report in await verify(db) if report.drifts}


async def assert_clean(db: Db) -> None:
    drifts = await named(db)
    # Nobody has told the provider to give money back, or asked for what is owed.
    assert not drifts.keys() - {"paid-orders"}, drifts


async def test_what_comes_at_once_is_booked_together(
    settler: Settler, orders: list[UUID], db: Db, owner: asyncpg.Connection
) -> None:
    told = await asyncio.gather(*(settler.settle(paid(order_id)) for order_id in orders))
    assert told == [Pay()] * ORDERS
    booked = "SELECT count(*), count(DISTINCT xmin::text) FROM postings"
    postings, transactions = await owner.fetchrow(booked) or (0, 0)
    assert postings == ORDERS
    assert transactions <= 2  # the first, and those that came while it was committed
    await assert_clean(db)


async def test_each_of_many_words_means_what_it_would_alone(
    settler: Settler, orders: list[UUID], bell: Bell, db: Db
) -> None:
    refunds = bell.listener(REFUND.consumer)
    twice, late, in_vain, *rest = orders
    assert await settler.settle(failed(late)) == Compensate()
    unknown = new_id()
    told = await asyncio.gather(
        *(settler.settle(paid(order_id)) for order_id in rest),
        settler.settle(paid(twice)),
        settler.settle(paid(twice)),
        settler.settle(failed(in_vain)),
        settler.settle(paid(late)),
        settler.settle(paid(unknown)),
        return_exceptions=True,
    )
    assert told[: len(rest)] == [Pay()] * len(rest)
    once, again, canceled, back, nobody = told[len(rest) :]
    assert {once, again} == {Pay(), Ignore(REPEATED)}
    assert canceled == Compensate()
    assert back == GiveBack()
    assert isinstance(nobody, OrderNotFound)
    assert refunds.is_set()
    await assert_clean(db)


async def test_while_the_shops_account_is_locked_all_are_told_to_come_again(
    settler: Settler, orders: list[UUID], db: Db, owner: asyncpg.Connection
) -> None:
    first, *others = orders
    assert await settler.settle(paid(first)) == Pay()
    started = monotonic()
    async with owner.transaction():
        await owner.execute("SELECT FROM accounts WHERE owner LIKE 'merchant:%' FOR UPDATE")
        told = await asyncio.gather(
            *(settler.settle(paid(order_id)) for order_id in others), return_exceptions=True
        )
    assert {type(refusal) for refusal in told} == {Overloaded}
    assert monotonic() - started < 2 * 5 + 2  # the first alone, then all that came meanwhile
    again = await asyncio.gather(*(settler.settle(paid(order_id)) for order_id in others))
    assert again == [Pay()] * len(others)
    await assert_clean(db)


async def test_a_failure_does_not_wait_for_an_account(
    settler: Settler, orders: list[UUID], owner: asyncpg.Connection
) -> None:
    first, paying, failing, *_ = orders
    assert await settler.settle(paid(first)) == Pay()
    async with owner.transaction():
        await owner.execute("SELECT FROM accounts WHERE owner LIKE 'merchant:%' FOR UPDATE")
        waiting = asyncio.create_task(settler.settle(paid(paying)))
        await asyncio.sleep(0.1)
        started = monotonic()
        assert await settler.settle(failed(failing)) == Compensate()
        assert monotonic() - started < 0.5
        assert not waiting.done()
    assert await waiting == Pay()


async def test_hundreds_of_repeats_are_answered(settler: Settler, orders: list[UUID]) -> None:
    told = await asyncio.gather(*(settler.settle(paid(orders[0])) for _ in range(500)))
    assert told.count(Pay()) == 1
    assert told.count(Ignore(REPEATED)) == 499


async def test_words_about_locked_orders_hold_few_connections(
    settler: Settler, orders: list[UUID], db: Db, owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute("SELECT FROM orders FOR UPDATE")
        waiting = [asyncio.create_task(settler.settle(failed(order_id))) for order_id in orders]
        await asyncio.sleep(0.5)
        held = """SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        assert 0 < await owner.fetchval(held) <= ALONE_MAX
        # Who holds one lets go after a second, and nobody waits for one much longer than three.
        done, undone = await asyncio.wait(waiting, timeout=ALONE_SECONDS_MAX + 2)
        assert not undone
        assert Overloaded in {type(task.exception()) for task in done}
    again = await asyncio.gather(*(settler.settle(failed(order_id)) for order_id in orders))
    assert {type(settlement) for settlement in again} <= {Compensate, Ignore}
    await assert_clean(db)


async def test_many_failures_and_cancels_of_one_locked_order_hold_up_no_other(
    settler: Settler, orders: list[UUID], owner: asyncpg.Connection
) -> None:
    stuck, failing, canceled, *_ = orders
    async with owner.transaction():
        await owner.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", stuck)
        waiting: list[asyncio.Task[object]] = []
        for _ in range(40):
            waiting.append(asyncio.create_task(settler.settle(failed(stuck))))
            waiting.append(asyncio.create_task(settler.cancel(stuck)))
        await asyncio.sleep(0.1)
        started = monotonic()
        assert await settler.settle(failed(failing)) == Compensate()
        assert (await settler.cancel(canceled)).id == canceled
        assert monotonic() - started < 0.5
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert told.count(Compensate()) <= 1


async def test_an_order_that_is_locked_elsewhere_holds_up_no_other(
    settler: Settler, orders: list[UUID], db: Db, owner: asyncpg.Connection
) -> None:
    stuck, *others = orders
    started = monotonic()
    async with owner.transaction():
        await owner.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", stuck)
        waiting = asyncio.create_task(settler.settle(paid(stuck)))
        await asyncio.gather(*(settler.settle(paid(order_id)) for order_id in others))
        assert monotonic() - started < 2
        await asyncio.sleep(0.5)
        assert not waiting.done()
    assert await waiting == Pay()
    await assert_clean(db)


async def test_the_payment_that_was_made_for_an_order_pays_no_other(
    settler: Settler, orders: list[UUID], db: Db, owner: asyncpg.Connection
) -> None:
    """Else its money would be given back for an order that it was never for."""
    mine, other = orders[:2]
    word = paid(mine)
    await asking.bind(db, mine, word.payment_id)
    with pytest.raises(PaymentOfAnotherOrder):
        await asking.bind(db, other, word.payment_id)
    for result in Result:
        with pytest.raises(PaymentOfAnotherOrder):
            await settler.settle(Word(other, word.payment_id, result))
    assert await settler.settle(word) == Pay()
    assert await owner.fetchval("SELECT count(*) FROM order_payments") == 1
    await assert_clean(db)


async def test_a_callback_that_was_faster_than_the_providers_answer_leaves_the_name_its_owner(
    settler: Settler, orders: list[UUID], db: Db
) -> None:
    word = paid(orders[0])
    assert await settler.settle(word) == Pay()
    await asking.bind(db, orders[0], word.payment_id)
    with pytest.raises(PaymentOfAnotherOrder):
        await settler.settle(word._replace(order_id=orders[1]))


async def test_a_payment_whose_name_was_never_heard_is_asked_for_after_the_order_was_closed(
    settler: Settler, orders: list[UUID], db: Db
) -> None:
    """The provider may hold its money: the same key finds it, and it goes back."""
    unasked, unheard, heard, *_ = orders
    for order_id in (unheard, heard):
        assert await asking.ask(db, order_id, 900) is not None
    await asking.bind(db, heard, paid(heard).payment_id)
    for order_id in (unasked, unheard, heard):
        await settler.cancel(order_id)
    assert await asking.ask(db, unasked, 900) is None
    assert await asking.ask(db, heard, 900) is None
    assert await asking.ask(db, unheard, 900) is not None
    await asking.bind(db, unheard, paid(unheard).payment_id)
    assert await settler.settle(paid(unheard)) == GiveBack()
    await assert_clean(db)


async def test_money_that_another_orders_payment_brought_is_not_given_back_for_this_one(
    orders: list[UUID], db: Db
) -> None:
    """Told under a wrong name before we knew whose it was: a person must see to it."""
    mine, other = orders[:2]
    name = paid(mine).payment_id
    await payments.time_out(db, other)
    assert await payments.settle(db, Word(other, name, Result.SUCCESS)) == GiveBack()
    await asking.bind(db, mine, name)
    with pytest.raises(PaymentOfAnotherOrder):
        await payments.refund_due(db, other, name)
    async with db.begin() as tx:
        await payments.refund_failed(tx, other, name)
    with pytest.raises(PaymentOfAnotherOrder):
        await payments.returned(db, other, name)
    assert "was made for order" in (await named(db))["payment-names"][0]


async def test_a_refund_that_is_tried_again_is_no_persons_meanwhile(
    settler: Settler, orders: list[UUID], db: Db
) -> None:
    word = paid(orders[0])
    await settler.cancel(word.order_id)
    await settler.settle(word)
    async with db.begin() as tx:
        await payments.refund_failed(tx, word.order_id, word.payment_id)
    assert await payments.refund_due(db, word.order_id, word.payment_id) is not None
    with pytest.raises(RefundInProgress):
        await payments.returned(db, word.order_id, word.payment_id)


async def test_cancels_of_a_locked_order_hold_few_connections(
    settler: Settler, orders: list[UUID], owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", orders[0])
        waiting = [asyncio.create_task(settler.cancel(orders[0])) for _ in range(40)]
        await asyncio.sleep(0.5)
        held = """SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        assert 0 < await owner.fetchval(held) <= ALONE_MAX
        _, undone = await asyncio.wait(waiting, timeout=ALONE_SECONDS_MAX + 3)
        assert not undone
    assert all(task.exception() for task in waiting)


async def test_a_person_gives_back_what_no_provider_could(orders: list[UUID], db: Db) -> None:
    order_id = orders[0]
    word = paid(order_id)
    await payments.time_out(db, order_id)
    with pytest.raises(RefundNotFound):
        await payments.returned(db, order_id, word.payment_id)
    await payments.settle(db, word)
    with pytest.raises(RefundInProgress):
        await payments.returned(db, order_id, word.payment_id)
    async with db.begin() as tx:
        await payments.refund_failed(tx, order_id, word.payment_id)
    for _ in range(2):
        refund = await payments.returned(db, order_id, word.payment_id)
        assert refund.status is RefundStatus.SUCCEEDED
    assert await payments.refund_due(db, order_id, word.payment_id) is None
    told = [entry.happened for entry in await service.timeline(db, order_id)]
    assert told.count("refund.succeeded") == 1
    await assert_clean(db)


async def test_booking_a_refund_by_hand_discards_its_dead_letter_and_no_other(
    orders: list[UUID], db: Db, owner: asyncpg.Connection
) -> None:
    words = [paid(orders[0]), paid(orders[0])._replace(payment_id="another"), paid(orders[1])]
    for order_id in orders[:2]:
        await payments.time_out(db, order_id)
    for word in words:
        await payments.settle(db, word)
    await _bury_refunds(db)
    for _ in range(2):
        await payments.returned(db, words[0].order_id, words[0].payment_id)
    letters = await dead_letters.page(db, Chosen(), None, 10, resolved=True)
    assert len(letters) == len(words)
    (done,) = [letter for letter in letters if letter.resolution is not None]
    _, body = await dead_letters.show(db, done.id)
    assert words[0].payment_id.encode() in body
    assert (done.resolution, done.resolved_by) == ("discarded", "admin")
    audits = await owner.fetch("SELECT actor, action, letters FROM dead_letter_audits")
    assert [tuple(audit) for audit in audits] == [("admin", "discarded", 1)]


async def _bury_refunds(db: Db) -> None:
    consumer = Consumer(REFUND.consumer, together=refund_failed, on_dead=refund_failed)
    claims = await outbox.claim(db, consumer, 10, Holder("test:1:a", 30))
    for claimed in claims:
        await outbox.fail(db, consumer, claimed, ValueError("no"), Bury(Reason.REJECTED))


async def test_failures_without_end_do_not_fill_an_orders_timeline(
    settler: Settler, orders: list[UUID], db: Db
) -> None:
    """Its entries are numbered, and the last number would be the last word about it."""
    order_id = orders[0]
    assert await settler.settle(paid(order_id)) == Pay()
    others = [Word(order_id, f"other-{n}", Result.FAILED) for n in range(PAYMENTS_MAX + 20)]
    for word in others:
        assert isinstance(await payments.settle(db, word), Ignore)
    assert len(await service.timeline(db, order_id)) <= PAYMENTS_MAX + 5
    late = Word(order_id, "late", Result.SUCCESS)
    assert await settler.settle(late) == GiveBack()
    await assert_clean(db)

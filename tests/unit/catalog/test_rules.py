"""What a price may be, and what moves do to stock."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.catalog import rules
from picopay.catalog.errors import PriceInvalid
from picopay.catalog.model import (
    PRICE_MINOR_MAX,
    STOCK_MAX,
    Change,
    MoveReason,
    NewProduct,
    Product,
    Stock,
    StockMove,
)
from picopay.kernel.money import Money

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LAPTOP, MOUSE = UUID(int=1), UUID(int=2)


def a_product(stock: int = 10, *, is_active: bool = True, archived: bool = False) -> Product:
    price, archived_at = Money(150_000, "USD"), NOW if archived else None
    return Product(LAPTOP, "Laptop", price, stock, is_active, archived_at, 1, NOW, NOW)


def a_move(delta: int, product_id: UUID = LAPTOP) -> StockMove:
    reason = MoveReason.RETURNED if delta > 0 else MoveReason.RESERVED
    return StockMove(product_id, delta, reason, uuid4())


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (0, "USD", 0),
        (Decimal("0.00"), "USD", 0),
        (Decimal("0.01"), "USD", 1),
        (1500, "USD", 150_000),
        (Decimal("19.990"), "USD", 1999),
        (Decimal("9999999999.99"), "USD", PRICE_MINOR_MAX),
        (900, "JPY", 900),
        (Decimal("1.234"), "KWD", 1234),
    ],
)
def test_a_price_is_exact(amount: Decimal | int, currency: str, minor: int) -> None:
    assert rules.price(amount, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("amount", "why"),
    [
        (-1, "must not be negative"),
        (Decimal("-0.01"), "must not be negative"),
        (Decimal("0.001"), "more than the 2 decimals"),
        (10_000_000_000, "must not exceed 9999999999.99"),
        (Decimal("9999999999.991"), "more than the 2 decimals"),
        (10**30, "must not exceed"),
        (Decimal("1e300"), "must not exceed"),
        (Decimal("NaN"), "must be a finite number"),
        (Decimal("Infinity"), "must be a finite number"),
    ],
)
def test_what_is_no_price_is_refused_and_says_why(amount: Decimal | int, why: str) -> None:
    with pytest.raises(PriceInvalid) as refused:
        rules.price(amount, "USD")
    assert why in refused.value.detail
    assert refused.value.fields["errors"][0]["field"] == "price"  # pyright: ignore[reportIndexIssue, reportUnknownMemberType] - as declared


def test_a_product_is_for_sale_while_it_is_active_and_not_archived() -> None:
    assert a_product().is_for_sale
    assert not a_product(is_active=False).is_for_sale
    assert not a_product(archived=True).is_for_sale


def test_products_are_opened_with_their_stock_unless_it_is_nothing() -> None:
    price = Money(1, "USD")
    new = [
        NewProduct(LAPTOP, "Laptop", price, 3, is_active=True),
        NewProduct(MOUSE, "Mouse", price, 0, is_active=True),
    ]
    assert rules.opened(new) == [StockMove(LAPTOP, 3, MoveReason.OPENED)]


@pytest.mark.parametrize(("stock", "delta"), [(25, 15), (0, -10)])
def test_an_administrators_stock_is_a_move_of_the_difference(stock: int, delta: int) -> None:
    moved = rules.adjusted(a_product(10), Change(stock=stock))
    assert moved == [StockMove(LAPTOP, delta, MoveReason.ADJUSTED)]


def test_without_a_difference_nothing_moves() -> None:
    assert rules.adjusted(a_product(10), Change(stock=10)) == []
    assert rules.adjusted(a_product(10), Change(name="Notebook")) == []


def test_a_change_leaves_what_it_does_not_name_and_never_sets_stock() -> None:
    before = a_product()
    assert rules.changed(before, Change()) == before
    assert rules.changed(before, Change(stock=99)) == before
    wanted = Change("Notebook", Money(0, "EUR"), None, is_active=False)
    after = rules.changed(before, wanted)
    assert after == before._replace(name="Notebook", price=Money(0, "EUR"), is_active=False)
    assert rules.differences(before, after) == {
        "name": ("Laptop", "Notebook"),
        "price": ("1500.00", "0.00"),
        "is_active": (True, False),
    }


def test_several_moves_of_a_product_get_consecutive_versions() -> None:
    moves = [a_move(-4), a_move(-1, MOUSE), a_move(-6), a_move(4)]
    ids = [UUID(int=number) for number in range(4)]
    recorded = rules.record({LAPTOP: Stock(10, 7), MOUSE: Stock(1, 1)}, moves, ids)
    assert recorded == [
        (ids[0], moves[0], Stock(6, 8)),
        (ids[1], moves[1], Stock(0, 2)),
        (ids[2], moves[2], Stock(0, 9)),
        (ids[3], moves[3], Stock(4, 10)),
    ]
    assert rules.lasts(recorded) == {LAPTOP: Stock(4, 10), MOUSE: Stock(0, 2)}


def test_more_than_there_is_cannot_be_taken_even_if_it_came_back_later() -> None:
    with pytest.raises(AssertionError):
        rules.record({LAPTOP: Stock(1, 1)}, [a_move(-2), a_move(2)], [LAPTOP, MOUSE])


def test_a_move_of_nothing_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        rules.record({LAPTOP: Stock(1, 1)}, [a_move(0)], [LAPTOP])


def test_what_comes_back_fits_and_more_than_the_largest_is_never_set() -> None:
    full = {LAPTOP: Stock(STOCK_MAX, 1)}
    assert rules.record(full, [a_move(1)], [LAPTOP])[0].after.quantity == STOCK_MAX + 1
    with pytest.raises(AssertionError):
        rules.record(full, [StockMove(LAPTOP, 1, MoveReason.ADJUSTED)], [LAPTOP])


@given(
    st.dictionaries(st.sampled_from([LAPTOP, MOUSE]), st.integers(0, 20), min_size=2),
    st.lists(st.tuples(st.sampled_from([LAPTOP, MOUSE]), st.integers(-5, 5)), max_size=30),
)
def test_what_is_recorded_is_a_gapless_chain_that_sums_up(
    quantities: dict[UUID, int], drawn: list[tuple[UUID, int]]
) -> None:
    before = {product_id: Stock(quantity, 1) for product_id, quantity in quantities.items()}
    left = dict(quantities)
    moves: list[StockMove] = []
    for product_id, delta in drawn:  # those that can be
        if delta and left[product_id] + delta >= 0:
            left[product_id] += delta
            moves.append(a_move(delta, product_id))
    recorded = rules.record(before, moves, [uuid4() for _ in moves])
    assert [item.move for item in recorded] == moves
    for product_id, quantity in quantities.items():
        own = [item for item in recorded if item.move.product_id == product_id]
        assert [item.after.version for item in own] == list(range(2, 2 + len(own)))
        running = list(accumulate((item.move.delta for item in own), initial=quantity))
        assert [item.after.quantity for item in own] == running[1:]
        assert min(running) >= 0
    ends = rules.lasts(recorded)
    assert list(ends) == sorted(ends)
    assert {p: s.quantity for p, s in ends.items()} == {
        p: left[p] for p in {move.product_id for move in moves}
    }

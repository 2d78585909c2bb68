"""What becomes of orders: every word of a provider, in every state."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.catalog.model import MoveReason, Product
from picopay.kernel.money import AMOUNT_MINOR_MAX, Money
from picopay.orders import rules
from picopay.orders.errors import (
    InsufficientStock,
    OrderKeyReused,
    OrderTooLarge,
    PricedInAnotherCurrency,
    ProductUnavailable,
)
from picopay.orders.model import (
    OPEN,
    TRANSITIONS,
    Item,
    Line,
    Order,
    OrderCommand,
    Payment,
    PaymentStatus,
    Result,
    Status,
)
from picopay.orders.rules import (
    Busy,
    Compensate,
    Declined,
    GiveBack,
    Ignore,
    Pay,
    Placed,
    Replay,
    Shelves,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOSED = [Status.PAID, Status.CANCELED]


def a_product(number: int = 1, **changes: object) -> Product:
    product = Product(
        id=UUID(int=number), name="Mouse", price=Money(2500, "USD"), stock=10, is_active=True,
        archived_at=None, version=1, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return product._replace(**changes)


def shelves(*products: Product) -> Shelves:
    return Shelves({product.id: product for product in products}, "USD")


def a_command(*lines: tuple[int, int], key: str = "k", **changes: object) -> OrderCommand:
    wanted = tuple(Line(UUID(int=number), quantity) for number, quantity in lines)
    command = OrderCommand(UUID(int=99), "ada@example.com", wanted, key)
    return command._replace(**changes)


def an_order(status: Status = Status.RESERVED, payment_id: str | None = None) -> Order:
    items = (Item(UUID(int=7), UUID(int=1), 2, 2500),)
    total = Money(5000, "USD")
    return Order(UUID(int=99), "ada@example.com", status, total, items, None, payment_id, NOW, NOW)


def decide(
    commands: Iterable[OrderCommand],
    *products: Product,
    known: dict[str, Order] | None = None,
    busy: Iterable[int] = (),
) -> list[rules.Decision]:
    ids = (UUID(int=1000 + n) for n in range(1000))
    locked = frozenset(UUID(int=number) for number in busy)
    return rules.decide_batch(list(commands), known or {}, shelves(*products), locked, ids)


def test_an_order_takes_its_stock_at_the_price_that_holds_now() -> None:
    (placed,) = decide(
        [a_command((1, 2), (2, 3))], a_product(1), a_product(2, price=Money(1, "USD"))
    )
    assert isinstance(placed, Placed)
    assert placed.total_minor == 5003
    assert [(i.product_id.int, i.quantity, i.price_minor) for i in placed.items] == [
        (1, 2, 2500),
        (2, 3, 1),
    ]
    assert [(m.product_id.int, m.delta, m.reason) for m in placed.moves] == [
        (1, -2, MoveReason.RESERVED),
        (2, -3, MoveReason.RESERVED),
    ]


@pytest.mark.parametrize(
    ("product", "refusal"),
    [
        (a_product(2), ProductUnavailable),
        (a_product(1, is_active=False), ProductUnavailable),
        (a_product(1, archived_at=NOW), ProductUnavailable),
        (a_product(1, price=Money(2500, "EUR")), PricedInAnotherCurrency),
        (a_product(1, stock=1), InsufficientStock),
        (a_product(1, price=Money(AMOUNT_MINOR_MAX, "USD")), OrderTooLarge),
    ],
)
def test_what_cannot_be_sold_is_declined(product: Product, refusal: type[Exception]) -> None:
    (declined,) = decide([a_command((1, 2))], product)
    assert isinstance(declined, Declined)
    assert type(declined.reason) is refusal


def test_a_declined_order_takes_nothing() -> None:
    first, second = decide(
        [a_command((1, 5), (2, 99), key="a"), a_command((1, 10), key="b")],
        a_product(1),
        a_product(2),
    )
    assert isinstance(first, Declined)
    assert isinstance(second, Placed)


@given(st.lists(st.integers(1, 4), max_size=40), st.integers(0, 20))
def test_no_batch_sells_more_than_there_is(quantities: list[int], stock: int) -> None:
    commands = [a_command((1, quantity), key=str(n)) for n, quantity in enumerate(quantities)]
    decisions = decide(commands, a_product(1, stock=stock))
    left = stock
    for quantity, decision in zip(quantities, decisions, strict=True):
        assert isinstance(decision, Placed) == (quantity <= left)
        left -= quantity if isinstance(decision, Placed) else 0
    assert left >= 0


def test_who_meets_a_locked_product_asks_again_and_delays_no_other() -> None:
    waits, goes = decide(
        [a_command((1, 1), (2, 1), key="a"), a_command((1, 1), key="b")],
        a_product(1),
        busy=[2],
    )
    assert isinstance(waits, Busy)
    assert isinstance(goes, Placed)


def test_twins_in_one_batch_are_one_order() -> None:
    first, twin = decide([a_command((1, 1)), a_command((1, 1))], a_product(1))
    assert isinstance(first, Placed)
    assert isinstance(twin, Busy)


def test_one_product_twice_is_the_sum() -> None:
    lines = [Line(UUID(int=1), 2), Line(UUID(int=2), 1), Line(UUID(int=1), 3)]
    assert rules.summed(lines) == (Line(UUID(int=1), 5), Line(UUID(int=2), 1))


@pytest.mark.parametrize(
    ("command", "differing"),
    [
        (a_command((1, 2)), None),
        (a_command((1, 3)), ["items"]),
        (a_command((2, 2)), ["items"]),
        (a_command((1, 2), user_email="eve@example.com"), ["user_email"]),
        (a_command((1, 2), user_id=7), ["user_id"]),
    ],
)
def test_a_key_means_one_order(command: OrderCommand, differing: list[str] | None) -> None:
    (decision,) = decide([command], known={"k": an_order(Status.PAID, "p")})
    if differing is None:
        assert decision == Replay(an_order(Status.PAID, "p"))
    else:
        assert isinstance(decision, Declined)
        assert isinstance(decision.reason, OrderKeyReused)
        assert decision.reason.fields["mismatched_fields"] == differing


def test_a_replay_is_shown_as_it_was_first() -> None:
    later = datetime(2026, 1, 2, tzinfo=UTC)
    paid = an_order(Status.PAID, "p")._replace(updated_at=later)
    assert rules.as_placed(paid)[:3] == an_order()[:3]
    assert rules.as_placed(paid).updated_at == NOW


def payment(status: str | None) -> Payment | None:
    return None if status is None else Payment("p", PaymentStatus(status))


@pytest.mark.parametrize("status", sorted(OPEN))
@pytest.mark.parametrize(
    ("bound", "known", "result", "wanted"),
    [
        (None, None, Result.SUCCESS, Pay()),
        (None, None, Result.FAILED, Compensate()),
        ("p", "pending", Result.SUCCESS, Pay()),
        ("p", "pending", Result.FAILED, Compensate()),
        ("other", None, Result.SUCCESS, GiveBack()),
        ("other", "pending", Result.SUCCESS, GiveBack()),
        ("other", "failed", Result.SUCCESS, GiveBack()),
        ("other", None, Result.FAILED, Ignore(rules.ANOTHER)),
        ("other", "failed", Result.FAILED, Ignore(rules.REPEATED)),
        ("other", "succeeded", Result.SUCCESS, Ignore(rules.REPEATED)),
    ],
)
def test_a_providers_word_about_an_open_order(
    status: Status, bound: str | None, known: str | None, result: Result, wanted: rules.Settlement
) -> None:
    assert rules.settle(an_order(status, bound), payment(known), "p", result) == wanted


@pytest.mark.parametrize("status", CLOSED)
@pytest.mark.parametrize("bound", [None, "p", "other"])
@pytest.mark.parametrize(
    ("known", "result", "wanted"),
    [
        (None, Result.SUCCESS, GiveBack()),
        ("pending", Result.SUCCESS, GiveBack()),
        ("failed", Result.SUCCESS, GiveBack()),
        ("succeeded", Result.SUCCESS, Ignore(rules.REPEATED)),
        ("succeeded", Result.FAILED, Ignore(rules.CONTRADICTION)),
        ("failed", Result.FAILED, Ignore(rules.REPEATED)),
        ("pending", Result.FAILED, Ignore(rules.TOO_LATE)),
        (None, Result.FAILED, Ignore(rules.TOO_LATE)),
    ],
)
def test_a_providers_word_about_a_closed_order(
    status: Status, bound: str | None, known: str | None, result: Result, wanted: rules.Settlement
) -> None:
    assert rules.settle(an_order(status, bound), payment(known), "p", result) == wanted


def test_closed_orders_stay_as_they_are_and_open_ones_can_be_closed() -> None:
    for status in CLOSED:
        assert not TRANSITIONS[status]
    for status in OPEN:
        assert set(CLOSED) <= TRANSITIONS[status]


def test_what_is_canceled_goes_back_where_it_came_from() -> None:
    (move,) = rules.returns(an_order())
    assert (move.product_id.int, move.delta, move.reason) == (1, 2, MoveReason.RETURNED)
    assert move.order_id == UUID(int=99)


@pytest.mark.parametrize(
    ("waited_seconds", "again_seconds"),
    [(0.5, 60), (60, 60), (61, 61), (3_600, 3_600), (86_400, 86_400), (1e9, 86_400)],
)
def test_what_has_been_pending_for_long_is_asked_about_seldom(
    waited_seconds: float, again_seconds: float
) -> None:
    assert rules.poll_again_seconds(waited_seconds) == again_seconds


@pytest.mark.parametrize(
    "user_email",
    [
        "ada@example.com",
        "ADA@Example.COM",
        "ada+1@example.com",
        "ada+@example.com",
        "\N{FULLWIDTH LATIN SMALL LETTER A}da@example.com",
        "a\N{COMBINING GRAPHEME JOINER}da@example.com",
        '"ada"@example.com',
        "ada@example.com.",
        "ada@example\N{IDEOGRAPHIC FULL STOP}com",
        "ada@exam\N{SOFT HYPHEN}ple.com",
    ],
)
def test_the_orders_of_look_alikes_count_together(user_email: str) -> None:
    assert rules.limited_as(user_email) == "ada@example.com"


@pytest.mark.parametrize("user_email", ["adam@example.com", "+1@example.com", "ada@example.org"])
def test_the_orders_of_others_do_not(user_email: str) -> None:
    assert rules.limited_as(user_email) != "ada@example.com"


def test_a_domain_is_the_same_however_it_is_spelled() -> None:
    assert rules.limited_as("ada@b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example") == (
        rules.limited_as("ada@xn--bcher-kva.example")
    )

"""What of a charge may be refunded: never more than was charged, whatever the sequence."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_book, a_charge, a_refund, an_account

from picopay.charges.errors import MerchantBalanceInsufficient, RefundExceedsCharge
from picopay.charges.model import Charge, Refund
from picopay.charges.rules import decide_refund, post_refund, replay_refund
from picopay.idempotency.errors import KeyReused
from picopay.kernel.errors import Refused
from picopay.kernel.money import Money
from picopay.ledger.errors import AccountLimit
from picopay.ledger.model import PostingKind
from picopay.ledger.rules import TOTAL_MAX

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
MERCHANT: Final = "merchant:default"


def charged(minor: int = 1000, *, user_id: int = 1, currency: str = "USD") -> Charge:
    command = a_charge(minor, user_id=user_id, currency=currency)
    return Charge(command.id, "default", user_id, command.money, 0, None)


@dataclass
class Shop:
    """A charge, and what its refunds leave behind, as the database would keep it."""

    charge: Charge
    merchant_minor: int
    refunded_minor: int = 0
    made: dict[str, Refund] = field(default_factory=dict[str, Refund])

    def refund(self, asked: int | None, key: str) -> Refund:
        """As `charges.refunds` does: claim, decide, post, write."""
        command = a_refund(self.charge, asked, key=key)
        if key in self.made:
            return replay_refund(command, self.made[key])
        refund = decide_refund(command, self.refunded_minor, NOW)
        book = a_book(an_account(MERCHANT, self.merchant_minor), an_account("user:1", 5))
        post_refund(book, command, refund)
        self.merchant_minor = book.balance(command.merchant)
        self.refunded_minor = refund.refunded_after_minor
        self.made[key] = refund
        return refund


asked = st.tuples(
    st.one_of(st.none(), st.integers(-5, 1200)), st.sampled_from(["a", "b", "c", "d", "e"])
)


@given(st.lists(asked, max_size=12), st.integers(1, 1000), st.integers(0, 1500))
def test_whatever_is_asked_never_more_than_the_charge_goes_back(
    wishes: list[tuple[int | None, str]], minor: int, merchant_minor: int
) -> None:
    shop = Shop(charged(minor), merchant_minor)
    for amount, key in wishes:
        before = shop.refunded_minor, shop.merchant_minor, dict(shop.made)
        try:
            refund = shop.refund(amount, key)
        except Refused:
            assert (shop.refunded_minor, shop.merchant_minor, shop.made) == before
        else:
            assert amount in (None, refund.money.minor)
            assert refund.money.minor > 0
    total = sum(refund.money.minor for refund in shop.made.values())
    assert shop.refunded_minor == total <= minor
    assert shop.merchant_minor == merchant_minor - total >= 0


@given(st.integers(1, 10**15), st.data())
def test_without_an_amount_all_that_is_left_goes_back(minor: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, minor - 1))
    refund = decide_refund(a_refund(charged(minor)), before, NOW)
    assert refund.money == Money(minor - before, "USD")
    assert refund.refunded_after_minor == minor


@pytest.mark.parametrize(
    ("asked_minor", "before"), [(1001, 0), (1, 1000), (None, 1000), (401, 600)]
)
def test_more_than_is_left_is_refused_with_what_is_left(
    asked_minor: int | None, before: int
) -> None:
    with pytest.raises(RefundExceedsCharge) as refused:
        decide_refund(a_refund(charged(1000), asked_minor), before, NOW)
    left = Money(1000 - before, "USD")
    assert refused.value.fields == {"refundable": left.major, "currency": "USD"}


@pytest.mark.parametrize("asked_minor", [0, -1])
def test_nothing_and_less_is_refused(asked_minor: int) -> None:
    with pytest.raises(RefundExceedsCharge):
        decide_refund(a_refund(charged(1000), asked_minor), 0, NOW)


def test_a_refund_is_one_posting_from_the_merchant_to_the_payer() -> None:
    book = a_book(an_account(MERCHANT, 1000), an_account("user:1", 5))
    command = a_refund(charged(1000), 300)
    post_refund(book, command, decide_refund(command, 0, NOW))
    ((move, *_),) = book.postings
    assert move.id == command.id
    assert (move.kind, move.debit.owner, move.credit.owner, move.minor) == (
        *(PostingKind.REFUND, MERCHANT, "user:1"),
        300,
    )


@given(st.integers(0, 299))
def test_a_merchant_without_the_money_is_refused_and_nothing_moves(has: int) -> None:
    book = a_book(an_account(MERCHANT, has), an_account("user:1", 5))
    command = a_refund(charged(1000), 300)
    with pytest.raises(MerchantBalanceInsufficient) as refused:
        post_refund(book, command, decide_refund(command, 0, NOW))
    assert refused.value.fields["balance"] == Money(has, "USD").major
    assert not book.postings


def test_a_payer_whose_totals_are_full_is_refused() -> None:
    book = a_book(an_account(MERCHANT, 1000), an_account("user:1", TOTAL_MAX))
    command = a_refund(charged(1000))
    with pytest.raises(AccountLimit):
        post_refund(book, command, decide_refund(command, 0, NOW))


CHARGE: Final = charged(1000)
OTHER: Final = charged(1000)


def made(asked_minor: int | None, reason: str | None = "late") -> Refund:
    return decide_refund(a_refund(CHARGE, asked_minor, reason=reason), 0, NOW)


@pytest.mark.parametrize("asked_minor", [None, 300])
def test_the_same_again_is_answered_with_the_first(asked_minor: int | None) -> None:
    first = made(asked_minor)
    assert replay_refund(a_refund(CHARGE, asked_minor, reason="late"), first) == first


@pytest.mark.parametrize(
    ("charge", "asked_minor", "reason", "fields"),
    [
        (CHARGE, 301, "late", ["amount"]),
        (CHARGE, None, "late", ["amount"]),
        (CHARGE, 300, None, ["reason"]),
        (OTHER, 300, "late", ["charge_id"]),
        (OTHER, 1, "broken", ["amount", "charge_id", "reason"]),
    ],
)
def test_another_request_under_the_key_is_told_what_differs(
    charge: Charge, asked_minor: int | None, reason: str | None, fields: list[str]
) -> None:
    with pytest.raises(KeyReused) as refused:
        replay_refund(a_refund(charge, asked_minor, reason=reason), made(300))
    assert refused.value.fields == {"mismatched_fields": fields}


def test_who_asked_for_all_may_not_repeat_it_with_the_sum_it_was() -> None:
    with pytest.raises(KeyReused) as refused:
        replay_refund(a_refund(CHARGE, 1000, reason="late"), made(None))
    assert refused.value.fields == {"mismatched_fields": ["amount"]}

"""What the fake provider decides."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.fake_payments import rules
from picopay.fake_payments.errors import FakePaymentNotRefundable
from picopay.fake_payments.model import (
    Callback,
    Knobs,
    Outcome,
    Payment,
    PaymentCommand,
    PaymentStatus,
)
from picopay.idempotency.errors import KeyReused
from picopay.kernel.money import Money

SUCCESS, FAILED = Outcome.SUCCESS, Outcome.FAILED
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = Knobs(None, 1.0, 1, 0.0, 0.0, lose=False, conflicting=False)
COMMAND = PaymentCommand(UUID(int=1), "order", Money(1999, "USD"), None, PLAIN)
chances = st.floats(0, 1, exclude_max=True)


def a_payment(
    outcome: Outcome = SUCCESS, *, settled: bool = True, refunded: bool = False
) -> Payment:
    refunded_at = NOW if refunded else None
    return Payment(*COMMAND[:4], outcome, PLAIN, NOW, NOW, refunded_at, settled)


def drawing(*values: float) -> Callable[[], float]:
    drawn: Iterator[float] = iter(values)
    return lambda: next(drawn)


@pytest.mark.parametrize(
    ("rate", "chance", "outcome"),
    [(0.8, 0.79, SUCCESS), (0.8, 0.8, FAILED), (0.8, 0.99, FAILED), (0.0, 0.0, FAILED)],
)
def test_chance_below_the_success_rate_succeeds(
    rate: float, chance: float, outcome: Outcome
) -> None:
    assert rules.decide_outcome(None, rate, chance) is outcome


@given(chances)
def test_a_rate_of_1_always_succeeds_and_a_rate_of_0_never(chance: float) -> None:
    assert rules.decide_outcome(None, 1, chance) is SUCCESS
    assert rules.decide_outcome(None, 0, chance) is FAILED


@given(st.sampled_from(Outcome), st.floats(0, 1), chances)
def test_a_forced_outcome_is_left_neither_to_the_rate_nor_to_chance(
    forced: Outcome, rate: float, chance: float
) -> None:
    assert rules.decide_outcome(forced, rate, chance) is forced


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        (PLAIN, [(SUCCESS, 1.0)]),
        (PLAIN._replace(duplicates=3), [(SUCCESS, 1.0)] * 3),
        (PLAIN._replace(conflicting=True), [(SUCCESS, 1.0), (FAILED, 1.0)]),
        (
            PLAIN._replace(conflicting=True, duplicates=2),
            [(SUCCESS, 1.0), (SUCCESS, 1.0), (FAILED, 1.0), (FAILED, 1.0)],
        ),
        (PLAIN._replace(lose=True), []),
        (PLAIN._replace(lose=True, conflicting=True, duplicates=20), []),
        (PLAIN._replace(silence_seconds=60), [(SUCCESS, 1.0)]),
    ],
)
def test_the_knobs_say_what_is_told(knobs: Knobs, told: list[tuple[Outcome, float]]) -> None:
    assert rules.plan_callbacks(SUCCESS, knobs, lambda: 0.5) == [Callback(*each) for each in told]


def test_reordered_callbacks_are_each_late_by_a_chance_of_their_own() -> None:
    knobs = PLAIN._replace(duplicates=3, reorder_seconds=10)
    callbacks = rules.plan_callbacks(FAILED, knobs, drawing(0.5, 0.0, 0.9))
    assert [callback.delay_seconds for callback in callbacks] == [6.0, 1.0, 10.0]


@given(
    st.builds(
        Knobs,
        st.none() | st.sampled_from(Outcome),
        *(st.floats(0, 86_400), st.integers(1, 20), st.floats(0, 3600), st.floats(0, 60)),
        lose=st.booleans(),
        conflicting=st.booleans(),
    ),
    st.floats(0, 1),
    chances,
)
def test_whatever_the_knobs_the_end_is_told_unless_lost_and_never_early(
    knobs: Knobs, rate: float, chance: float
) -> None:
    decision = rules.decide(knobs, rate, lambda: chance)
    told = {callback.outcome for callback in decision.callbacks}
    assert (decision.outcome in told) is not knobs.lose
    assert len(told) == (0 if knobs.lose else 1 + knobs.conflicting)
    latest = knobs.delay_seconds + knobs.reorder_seconds
    assert all(knobs.delay_seconds <= c.delay_seconds <= latest for c in decision.callbacks)


@pytest.mark.parametrize(
    ("payment", "status"),
    [
        (a_payment(settled=False), PaymentStatus.PENDING),
        (a_payment(FAILED, settled=False), PaymentStatus.PENDING),
        (a_payment(), PaymentStatus.SUCCESS),
        (a_payment(FAILED), PaymentStatus.FAILED),
        (a_payment(refunded=True), PaymentStatus.REFUNDED),
    ],
)
def test_a_payments_end_is_not_shown_before_it_is_settled(
    payment: Payment, status: PaymentStatus
) -> None:
    assert rules.status_of(payment) is status


def test_only_a_success_is_refunded_and_only_once() -> None:
    assert rules.decide_refund(a_payment()) is True
    assert rules.decide_refund(a_payment(refunded=True)) is False
    for payment in (a_payment(settled=False), a_payment(FAILED)):
        with pytest.raises(FakePaymentNotRefundable):
            rules.decide_refund(payment)


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        (COMMAND._replace(order_id="x"), ["order_id"]),
        (COMMAND._replace(money=Money(1998, "USD")), ["amount"]),
        (COMMAND._replace(money=Money(1999, "EUR")), ["currency"]),
        (COMMAND._replace(callback_url="http://x/"), ["callback_url"]),
        (COMMAND._replace(order_id="x", money=Money(1, "JPY")), ["amount", "currency", "order_id"]),
    ],
)
def test_a_key_that_means_another_payment_is_refused(
    changed: PaymentCommand, fields: list[str]
) -> None:
    with pytest.raises(KeyReused) as refused:
        rules.check_replay(changed, a_payment())
    assert refused.value.fields == {"mismatched_fields": fields}


def test_of_the_knobs_the_first_ones_count() -> None:
    rules.check_replay(COMMAND._replace(knobs=PLAIN._replace(lose=True)), a_payment(FAILED))


@given(st.text(), st.text())
def test_a_key_makes_one_id_and_no_other_key_makes_it(one: str, other: str) -> None:
    assert (rules.payment_id(one) == rules.payment_id(other)) is (one == other)

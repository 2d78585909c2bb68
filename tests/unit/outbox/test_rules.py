"""What becomes of a failed event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.outbox import rules
from picopay.outbox.errors import NotYet, Permanent
from picopay.outbox.model import Reason
from picopay.outbox.rules import Bury, DeferFor, Policy, RetryIn

POLICY = Policy()


def test_delays_are_one_two_four_eight_and_sixteen_seconds_and_then_it_is_buried() -> None:
    verdicts = [rules.after_failure(ValueError(), n, POLICY, 0) for n in range(1, 7)]
    assert verdicts == [*map(RetryIn, (1, 2, 4, 8, 16)), Bury(Reason.EXHAUSTED)]


@given(st.integers(1, 5), st.floats(0, 1))
def test_chance_only_lengthens_a_delay_and_by_a_tenth_at_most(attempts: int, chance: float) -> None:
    verdict = rules.after_failure(ValueError(), attempts, POLICY, chance)
    assert isinstance(verdict, RetryIn)
    assert 2 ** (attempts - 1) <= verdict.seconds <= 1.1 * 2 ** (attempts - 1)


@pytest.mark.parametrize("attempts", [1, 6, 99])
def test_permanent_errors_are_buried_at_once_and_early_ones_never(attempts: int) -> None:
    rejected = rules.after_failure(Permanent("no"), attempts, POLICY, 0)
    assert rejected == Bury(Reason.REJECTED)
    assert rules.after_failure(NotYet(7, "early"), attempts, POLICY, 1) == DeferFor(7)


def test_who_waited_in_vain_for_a_lock_comes_back_and_later_only_once_that_counts() -> None:
    waits = [rules.after_waiting("locked", n, POLICY, 0).seconds for n in (1, 1, 2, 3)]
    assert waits == [1, 1, 2, 4]
    assert rules.after_waiting("locked", 1, Policy(base_delay_seconds=0.01), 1).seconds == 1.1


def test_a_chore_takes_a_twentieth_of_the_time_and_rests_a_minute_at_most() -> None:
    assert [rules.pause_after(took, 5) for took in (0.01, 1, 14)] == [5, 20, 60]
    assert rules.pause_after(14, 300) == 300


def test_a_row_is_spent_when_it_is_claimed_once_more_than_it_may_be_tried() -> None:
    assert not rules.is_spent(6, POLICY)
    assert rules.is_spent(7, POLICY)


@given(st.text())
def test_an_error_is_told_in_bounded_text_that_any_database_takes(message: str) -> None:
    text = rules.text_of(ValueError(message))
    assert "\0" not in text
    assert len(text) <= rules.ERROR_TEXT_MAX
    text.encode()

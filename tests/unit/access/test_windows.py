"""Windows in memory: exactly what an oracle allows that keeps everything, and bounded."""

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.access.model import ALLOWED, Grant, Rule, Spending, Verdict
from picopay.access.rules import limit_key, retry_after_seconds
from picopay.access.windows import Windows

SECOND = 1_000_000
FIVE = Rule("five", 5, 60)
numbers = count()


def a_grant(*spent: tuple[Rule, str], at: int = 0) -> Grant:
    member = next(numbers).to_bytes(8, "big")
    return Grant(member, tuple(Spending(*one) for one in spent), at)


def take(windows: Windows, at: int, *spent: tuple[Rule, str]) -> Verdict:
    return windows.take(a_grant(*(spent or ((FIVE, "a"),)), at=at), at)


def oracle(rule: Rule, taken: list[int], now: int) -> int:
    """For how long nothing is allowed, by the definition: at most `limit` in any window."""
    recent = sorted(at for at in taken if at > now - rule.window_us)
    return recent[-rule.limit] + rule.window_us - now if len(recent) >= rule.limit else 0


rules = st.builds(Rule, st.just("r"), st.integers(1, 4), st.integers(1, 3))
gaps = st.lists(st.integers(0, SECOND), max_size=60)


@given(rules, gaps)
def test_it_allows_exactly_what_the_definition_allows(rule: Rule, gaps: list[int]) -> None:
    windows, now = Windows(), 0
    taken: list[int] = []
    for gap in gaps:
        now += gap
        verdict = take(windows, now, (rule, "a"))
        wait = oracle(rule, taken, now)
        assert verdict == (Verdict(rule, wait) if wait else ALLOWED)
        if not wait:
            taken.append(now)
    for first, last in zip(taken, taken[rule.limit :], strict=False):
        assert last - first >= rule.window_us


@given(rules, rules, gaps, st.lists(st.sampled_from(["one", "two", "both", "back"]), min_size=60))
def test_several_rules_spend_together_or_not_at_all(
    one: Rule, two: Rule, gaps: list[int], steps: list[str]
) -> None:
    windows, now = Windows(), 0
    kept: list[Grant] = []
    for gap, step in zip(gaps, steps, strict=False):
        now += gap
        if step == "back":
            if kept:
                windows.give_back(kept.pop(len(kept) // 2))
            continue
        spent = [(r, r_key) for r, r_key in ((one, "one"), (two, "two")) if step in {r_key, "both"}]
        waits = [
            oracle(rule, [g.at_us for g in kept if key in {s.key for s in g.spent}], now)
            for rule, key in spent
        ]
        grant = a_grant(*spent, at=now)
        verdict = windows.take(grant, now)
        assert verdict.wait_us == max(waits)
        if not max(waits):
            kept.append(grant)


@given(st.lists(st.integers(0, 59 * SECOND), min_size=5, max_size=5, unique=True))
def test_notes_that_come_late_are_put_in_their_order(ats: list[int]) -> None:
    windows = Windows()
    for at in ats:
        assert windows.take(a_grant((FIVE, "a"), at=at), 59 * SECOND) == ALLOWED
    now = 59 * SECOND
    for earlier, later in pairwise(sorted(ats)):
        wait = take(windows, now, (FIVE, "a")).wait_us
        assert wait == max(0, earlier + FIVE.window_us - now)
        now = earlier + FIVE.window_us
        assert later > earlier
        assert take(windows, now).wait_us == 0


def test_what_is_given_back_is_exactly_that() -> None:
    windows = Windows()
    grants = [a_grant((FIVE, "a"), at=at) for at in (1, 1, 2, 2, 3)]
    for grant in grants:
        assert windows.take(grant, 3) == ALLOWED
    windows.give_back(grants[1])
    windows.give_back(grants[1])
    assert len(windows) == 4
    assert take(windows, 4) == ALLOWED
    assert take(windows, 4) == Verdict(FIVE, 1 + FIVE.window_us - 4)
    windows.give_back(grants[0])
    assert take(windows, 5) == ALLOWED
    assert take(windows, 5) == Verdict(FIVE, 2 + FIVE.window_us - 5)


def test_what_is_given_back_too_late_changes_nothing() -> None:
    windows = Windows()
    old = a_grant((FIVE, "a"))
    assert windows.take(old, 0) == ALLOWED
    for _ in range(5):
        assert take(windows, FIVE.window_us) == ALLOWED
    windows.give_back(old)
    assert take(windows, FIVE.window_us).limited_by == FIVE


def test_the_longest_of_several_waits_is_told() -> None:
    short, long = Rule("short", 1, 10), Rule("long", 1, 60)
    windows = Windows()
    both = ((short, "s"), (long, "l"))
    assert take(windows, 0, *both) == ALLOWED
    assert take(windows, SECOND, *both) == Verdict(long, 59 * SECOND)
    assert take(windows, SECOND, *reversed(both)) == Verdict(long, 59 * SECOND)
    assert take(windows, 59 * SECOND, (short, "s")) == ALLOWED
    assert take(windows, 59 * SECOND, *both) == Verdict(short, 10 * SECOND)
    assert take(windows, 69 * SECOND, *both) == ALLOWED


def test_a_lowered_limit_waits_for_as_many_to_pass_as_are_too_much() -> None:
    windows = Windows()
    for at in range(5):
        assert take(windows, at * SECOND) == ALLOWED
    lowered = Rule("five", 2, 60)
    wait = take(windows, 5 * SECOND, (lowered, "a")).wait_us
    assert wait == (3 + 60 - 5) * SECOND


def test_the_subjects_that_were_allowed_something_longest_ago_are_forgotten_first() -> None:
    windows = Windows(members_max=10)
    once = Rule("once", 1, 60)
    for subject in range(10):
        assert take(windows, subject, (once, str(subject))) == ALLOWED
    assert take(windows, 10, (once, "10")) == ALLOWED
    assert len(windows) == 10
    assert take(windows, 11, (once, "1")).limited_by == once
    assert take(windows, 11, (once, "0")) == ALLOWED


@given(st.lists(st.tuples(st.integers(0, 40 * SECOND), st.integers(0, 30)), max_size=200))
def test_memory_stays_bounded(takes: list[tuple[int, int]]) -> None:
    windows, now = Windows(members_max=20), 0
    for gap, subject in takes:
        now += gap
        take(windows, now, (FIVE, str(subject)))
        assert len(windows) <= 20


def test_what_has_passed_is_forgotten_without_being_asked_for() -> None:
    windows = Windows()
    for subject in range(100):
        assert take(windows, 0, (FIVE, str(subject))) == ALLOWED
    assert len(windows) == 100
    assert take(windows, FIVE.window_us, (FIVE, "new")) == ALLOWED
    assert len(windows) == 1


@pytest.mark.parametrize(
    ("wait_us", "seconds"),
    [(1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2), (59_000_001, 60), (60_000_000, 60)],
)
def test_retry_after_is_rounded_up(wait_us: int, seconds: int) -> None:
    assert retry_after_seconds(wait_us) == seconds


def test_a_key_tells_rule_and_nothing_of_its_subject() -> None:
    key = limit_key(b"pepper", FIVE, "ada@example.com")
    assert key.startswith("picopay:{limits}:five:")
    assert "ada" not in key
    assert key == limit_key(b"pepper", FIVE, "ada@example.com")
    others = {
        limit_key(b"other", FIVE, "ada@example.com"),
        limit_key(b"pepper", FIVE, "bob@example.com"),
        limit_key(b"pepper", Rule("five", 5, 61), "ada@example.com"),
        limit_key(b"pepper", Rule("six", 5, 60), "ada@example.com"),
        limit_key(b"pepper", FIVE, "\ud800"),
    }
    assert len(others | {key}) == 6
    assert key == limit_key(b"pepper", Rule("five", 9, 60), "ada@example.com")

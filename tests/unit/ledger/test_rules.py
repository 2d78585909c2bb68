"""The book: money is neither made nor lost, and nobody spends what he lacks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_move, an_account, an_entry, balances

from picopay.kernel.errors import Refused
from picopay.ledger.errors import AccountLimit, InsufficientFunds
from picopay.ledger.model import Account, Entry, Move, may_overdraw
from picopay.ledger.rules import TOTAL_MAX, Book, bounds_below, merge_newest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNERS = ("user:1", "user:2", "merchant:default", "world")


def between(minor: int, sides: list[str], currency: str) -> Move:
    return a_move(minor, debit=sides[0], credit=sides[1], currency=currency)


moves = st.builds(
    between,
    st.integers(1, 400),
    st.lists(st.sampled_from(OWNERS), min_size=2, max_size=2, unique=True),
    st.sampled_from(["USD", "JPY"]),
)


def accounts() -> list[Account]:
    return [
        an_account(owner, 0 if owner == "world" else 500, currency=currency)
        for owner in OWNERS
        for currency in ("USD", "JPY")
    ]


def post_all(book: Book, wanted: list[Move]) -> list[Refused]:
    refusals: list[Refused] = []
    for move in wanted:
        try:
            book.post(move)
        except Refused as reason:
            refusals.append(reason)
    return refusals


@given(st.lists(moves, max_size=40))
def test_the_sum_of_balances_is_conserved_per_currency(wanted: list[Move]) -> None:
    before = accounts()
    book = Book(before)
    post_all(book, wanted)
    for currency in ("USD", "JPY"):
        ids = [account.id for account in before if account.id.currency == currency]
        assert sum(balances(book, ids).values()) == 1500


@given(st.lists(moves, max_size=40))
def test_only_the_world_is_ever_overdrawn(wanted: list[Move]) -> None:
    book = Book(accounts())
    post_all(book, wanted)
    for posting in book.postings:
        assert posting.debit_balance >= 0 or posting.move.debit.owner == "world"
    for _, after in book.changed():
        assert after.balance >= 0 or after.id.owner == "world"


@given(st.lists(moves, max_size=40))
def test_versions_are_gapless_and_running_balances_replay(wanted: list[Move]) -> None:
    book = Book(accounts())
    post_all(book, wanted)
    state = {account.id: (account.balance, account.version) for account in accounts()}
    for move, debit_balance, debit_version, credit_balance, credit_version in book.postings:
        for side, sign in ((move.debit, -1), (move.credit, 1)):
            balance, version = state[side]
            state[side] = (balance + sign * move.minor, version + 1)
        assert (debit_balance, debit_version) == state[move.debit]
        assert (credit_balance, credit_version) == state[move.credit]
    after = {account.id: (account.balance, account.version) for _, account in book.changed()}
    assert after.items() <= state.items()
    assert {posting.move.debit for posting in book.postings} <= after.keys()


@given(st.lists(moves, max_size=40))
def test_a_refused_move_changes_nothing(wanted: list[Move]) -> None:
    book = Book(accounts())
    ids = [account.id for account in accounts()]
    for move in wanted:
        before = (balances(book, ids), book.changed(), list(book.postings))
        try:
            book.post(move)
        except Refused:
            assert (balances(book, ids), book.changed(), book.postings) == before


@given(st.lists(moves, max_size=40))
def test_every_move_is_posted_once_or_refused(wanted: list[Move]) -> None:
    book = Book(accounts())
    refusals = post_all(book, wanted)
    assert len(book.postings) + len(refusals) == len(wanted)
    assert len({posting.move.id for posting in book.postings}) == len(book.postings)


@pytest.mark.parametrize(("balance", "minor"), [(0, 1), (999, 1000), (1, 10**15)])
def test_a_balance_below_the_amount_is_refused(balance: int, minor: int) -> None:
    book = Book([an_account("user:1", balance), an_account("merchant:default")])
    with pytest.raises(InsufficientFunds) as refused:
        book.post(a_move(minor))
    assert refused.value.code == "insufficient-balance"
    assert refused.value.fields["currency"] == "USD"
    assert refused.value.fields["balance"] * 100 == balance  # pyright: ignore[reportOperatorIssue] - a Decimal


def test_the_whole_balance_may_be_spent() -> None:
    book = Book([an_account("user:1", 1000), an_account("merchant:default")])
    assert book.post(a_move(1000)).debit_balance == 0


def with_totals(owner: str, debits: int, credited: int) -> Account:
    return an_account(owner)._replace(debits=debits, credits=credited, version=1)


@pytest.mark.parametrize(
    ("world_debits", "user_totals"), [(TOTAL_MAX - 99, 0), (99, TOTAL_MAX - 99)]
)
def test_totals_beyond_64_bits_are_refused_before_they_overflow(
    world_debits: int, user_totals: int
) -> None:
    book = Book(
        [with_totals("world", world_debits, 0), with_totals("user:1", user_totals, user_totals)]
    )
    with pytest.raises(AccountLimit):
        book.post(a_move(100, debit="world", credit="user:1"))
    assert book.postings == []
    assert book.post(a_move(99, debit="world", credit="user:1")).credit_balance == 99


def test_lacking_funds_are_told_before_a_full_account() -> None:
    merchant = with_totals("merchant:default", 0, TOTAL_MAX)
    with pytest.raises(InsufficientFunds):
        Book([an_account("user:1", 1), merchant]).post(a_move(2))


def test_untouched_accounts_are_not_written() -> None:
    book = Book(accounts())
    book.post(a_move(1))
    assert [after.id.owner for _, after in book.changed()] == ["merchant:default", "user:1"]


@pytest.mark.parametrize(
    ("owner", "allowed"),
    [
        ("world", True),
        ("external:acc_user_1", True),
        ("user:1", False),
        ("merchant:default", False),
        ("worldly", False),
    ],
)
def test_only_the_outside_may_overdraw(owner: str, *, allowed: bool) -> None:
    assert may_overdraw(owner) is allowed


def statement(currency: str, minutes: list[int]) -> list[Entry]:
    """Newest first, the highest version the newest."""
    newest_first = sorted(minutes, reverse=True)
    return [
        an_entry(len(minutes) - i, NOON + timedelta(minutes=minute), currency=currency)
        for i, minute in enumerate(newest_first)
    ]


minutes = st.lists(st.integers(0, 5), max_size=8)


@given(minutes, minutes)
def test_statements_merge_newest_first_and_keep_each_accounts_order(
    dollars: list[int], yen: list[int]
) -> None:
    sides = [statement("USD", dollars), statement("JPY", yen)]
    merged = merge_newest(sides)
    times = [entry.created_at for entry in merged]
    assert times == sorted(times, reverse=True)
    for side, currency in zip(sides, ("USD", "JPY"), strict=True):
        assert [entry for entry in merged if entry.currency == currency] == side


@given(minutes, minutes, st.integers(1, 3))
def test_pages_by_bounds_show_every_entry_once(
    dollars: list[int], yen: list[int], limit: int
) -> None:
    sides = [statement("USD", dollars), statement("JPY", yen)]
    bounds: dict[str, int] = {}
    shown: list[Entry] = []
    for _ in range(len(dollars) + len(yen) + 1):
        below = [[e for e in s if e.version < bounds.get(e.currency, 99)] for s in sides]
        page = merge_newest(below)[:limit]
        shown += page
        bounds = bounds_below(page, bounds)
    assert shown == merge_newest(sides)


def test_a_currency_without_entries_on_the_page_keeps_its_bound() -> None:
    bounds = bounds_below([an_entry(4, NOON), an_entry(3, NOON)], {"USD": 5, "JPY": 2})
    assert bounds == {"USD": 3, "JPY": 2}


@given(st.lists(moves, max_size=40), st.integers(0, 1000))
def test_what_a_payee_receives_is_what_a_known_account_would_receive(
    wanted: list[Move], held: int
) -> None:
    """Its side of a posting is counted from zero: what it held before is only an offset."""
    merchants = [a_move().credit, a_move(currency="JPY").credit]
    others = [account for account in accounts() if account.id not in merchants]
    known = Book([*others, *(an_account(m.owner, held, currency=m.currency) for m in merchants)])
    counted = Book(others, payees=merchants)
    paying = [move for move in wanted if move.debit not in merchants]
    assert len(post_all(known, paying)) == len(post_all(counted, paying))

    before = dict.fromkeys(merchants, (held, 1 if held else 0))
    for posting, other in zip(known.postings, counted.postings, strict=True):
        balance, version = before.get(posting.move.credit, (0, 0))
        assert posting.credit_balance == other.credit_balance + balance
        assert posting.credit_version == other.credit_version + version
        assert posting[:3] == other[:3]
    assert {payee: (minor, number) for payee, minor, number in counted.received()} == {
        after.id: (after.balance - old.balance, after.version - old.version)
        for old, after in known.changed()
        if after.id in merchants
    }

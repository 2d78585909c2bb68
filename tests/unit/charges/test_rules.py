"""A batch is decided as if its charges had come one by one, in the order of arrival."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_charge, an_account

from picopay.charges.model import Approved, Charge, ChargeCommand, Decision, Declined, Replayed
from picopay.charges.rules import claims, decide_batch, mismatches, refused_claims, replay
from picopay.idempotency.errors import KeyReused
from picopay.idempotency.model import KeyId
from picopay.ledger.errors import AccountLimit, InsufficientFunds
from picopay.ledger.model import Account, AccountId
from picopay.ledger.rules import TOTAL_MAX, Book
from picopay.users.errors import UserNotFound

START = {("user:1", "USD"): 1000, ("user:2", "USD"): 300, ("user:1", "JPY"): 50}
UNKNOWN = {9}

# User 3 has no account, user 9 does not exist; few keys, so that twins and reuse are common.
commands = st.builds(
    a_charge,
    st.sampled_from([1, 100, 400, 999]),
    user_id=st.sampled_from([1, 1, 2, 3, 9]),
    currency=st.sampled_from(["USD", "USD", "JPY"]),
    key=st.sampled_from([None, "a", "b", "c"]),
    merchant_id=st.sampled_from(["default", "default", "other"]),
)
batches = st.lists(commands, max_size=25)


@dataclass
class Bank:
    """What the database keeps between batches: balances, and the charge each key has made."""

    balances: dict[AccountId, int] = field(
        default_factory=lambda: {AccountId(*owned): minor for owned, minor in START.items()}
    )
    made: dict[KeyId, Charge] = field(default_factory=dict[KeyId, Charge])

    def decide(self, batch: Sequence[ChargeCommand]) -> list[Decision]:
        """As `charges.service` does: claim, decide, write, give back."""
        resources = claims(batch)
        known = {key: self.made[key] for key in resources if key in self.made}
        book = Book([*self._payers(), *_merchants(batch)])
        decisions = decide_batch(batch, book, resources, known, UNKNOWN)
        ours = {key: made for key, made in resources.items() if key not in known}
        given_back = refused_claims(ours, batch, decisions)
        for decision in decisions:
            if isinstance(decision, Approved) and decision.charge.key is not None:
                charge = decision.charge
                self.made[_key_of(charge)] = charge
        assert ours.keys() - given_back.keys() == self.made.keys() & ours.keys()
        for payer in self.balances:
            self.balances[payer] = book.balance(payer)
        return decisions

    def _payers(self) -> list[Account]:
        return [
            an_account(owner, minor, currency=currency)
            for (owner, currency), minor in self.balances.items()
        ]


def _key_of(charge: Charge) -> KeyId:
    command = a_charge(merchant_id=charge.merchant_id, key=charge.key)
    assert command.key_id is not None
    return command.key_id


def _merchants(batch: Iterable[ChargeCommand]) -> list[Account]:
    wanted = {command.merchant for command in batch}
    return [an_account(merchant.owner, currency=merchant.currency) for merchant in wanted]


def decide(
    batch: Sequence[ChargeCommand],
    balance: int = 1000,
    known: Mapping[KeyId, Charge] | None = None,
) -> list[Decision]:
    """With one account, of user 1 in dollars."""
    book = Book([an_account("user:1", balance), *_merchants(batch)])
    return decide_batch(batch, book, claims(batch), known or {}, UNKNOWN)


def told(decision: Decision) -> tuple[object, ...]:
    """All that a caller sees, but for the charge's id."""
    if isinstance(decision, Declined):
        return (type(decision.reason), decision.reason.detail, dict(decision.reason.fields))
    return (type(decision), *decision.charge[1:])


def kinds(decisions: Iterable[Decision]) -> list[type]:
    return [type(d.reason) if isinstance(d, Declined) else type(d) for d in decisions]


@given(batches)
def test_a_batch_never_overdraws(batch: list[ChargeCommand]) -> None:
    bank = Bank()
    decisions = bank.decide(batch)
    spent = dict.fromkeys(bank.balances, 0)
    for command, decision in zip(batch, decisions, strict=True):
        if isinstance(decision, Approved):
            spent[command.payer] += decision.charge.money.minor
            assert decision.charge.balance_after_minor >= 0
    for payer, minor in START.items():
        left = minor - spent[AccountId(*payer)]
        assert bank.balances[AccountId(*payer)] == left >= 0


@given(batches)
def test_a_batch_equals_its_commands_one_by_one(batch: list[ChargeCommand]) -> None:
    together, alone = Bank(), Bank()
    decisions = together.decide(batch)
    one_by_one = [alone.decide([command])[0] for command in batch]
    assert list(map(told, decisions)) == list(map(told, one_by_one))
    assert together.balances == alone.balances
    assert together.made.keys() == alone.made.keys()


@given(batches, st.integers(0, 25))
def test_where_a_batch_ends_changes_nothing(batch: list[ChargeCommand], cut: int) -> None:
    together, parted = Bank(), Bank()
    decisions = together.decide(batch)
    parts = [*parted.decide(batch[:cut]), *parted.decide(batch[cut:])]
    assert list(map(told, decisions)) == list(map(told, parts))


@given(batches)
def test_every_key_makes_one_charge_at_most(batch: list[ChargeCommand]) -> None:
    decisions = Bank().decide(batch)
    approved = [d.charge for d in decisions if isinstance(d, Approved)]
    keyed = [_key_of(charge) for charge in approved if charge.key is not None]
    assert len(set(keyed)) == len(keyed)
    assert len({charge.id for charge in approved}) == len(approved)
    for decision in decisions:
        if isinstance(decision, Replayed):
            assert decision.charge in approved


def test_arrival_order_decides_who_gets_the_last_money() -> None:
    first, second = a_charge(700), a_charge(600)
    assert kinds(decide([first, second])) == [Approved, InsufficientFunds]
    assert kinds(decide([second, first])) == [Approved, InsufficientFunds]


def test_a_smaller_charge_passes_after_a_larger_was_declined() -> None:
    batch = [a_charge(600), a_charge(600), a_charge(400)]
    assert kinds(decide(batch)) == [Approved, InsufficientFunds, Approved]


def test_twins_in_a_batch_are_one_charge() -> None:
    batch = [a_charge(400, key="a") for _ in range(10)]
    first, *others = decide(batch)
    assert isinstance(first, Approved)
    assert first.charge.balance_after_minor == 600
    assert others == [Replayed(first.charge)] * 9


def test_a_charge_takes_the_id_that_its_key_was_claimed_for() -> None:
    poor, rich = a_charge(2000, key="a"), a_charge(400, key="a")
    declined, approved = decide([poor, rich])
    assert kinds([declined, approved]) == [InsufficientFunds, Approved]
    assert isinstance(approved, Approved)
    assert approved.charge.id == poor.id == claims([poor, rich])[_key_of(approved.charge)]


def test_the_same_key_of_two_merchants_is_two_charges() -> None:
    batch = [a_charge(key="a"), a_charge(key="a", merchant_id="other")]
    assert len(claims(batch)) == 2
    assert kinds(decide(batch, 2000)) == [Approved, Approved]


def test_commands_without_a_key_are_never_twins() -> None:
    command = a_charge(400)
    batch = [command, command._replace(id=a_charge().id)]
    assert claims(batch) == {}
    assert kinds(decide(batch)) == [Approved, Approved]


# In the order of precedence: the key, the user, the account, the balance, the limit.
def test_a_reused_key_is_told_before_anything_else() -> None:
    first = a_charge(key="a")
    others = [
        a_charge(key="a", user_id=9),
        a_charge(key="a", user_id=3),
        a_charge(999_999, key="a"),
    ]
    assert kinds(decide([first, *others])) == [Approved, KeyReused, KeyReused, KeyReused]


def test_an_unknown_user_differs_from_one_without_an_account() -> None:
    nobody, euro, no_account = a_charge(user_id=9), a_charge(currency="EUR"), a_charge(user_id=3)
    decisions = decide([nobody, euro, no_account])
    assert kinds(decisions) == [UserNotFound, InsufficientFunds, InsufficientFunds]
    assert isinstance(decisions[1], Declined)
    assert decisions[1].reason.detail == "the balance is 0.00 EUR, the amount is 10.00"


def test_a_full_merchant_account_is_a_refusal() -> None:
    full = an_account("merchant:default")._replace(debits=TOTAL_MAX, credits=TOTAL_MAX, version=1)
    book = Book([an_account("user:1", 1000), full])
    assert kinds(decide_batch([a_charge()], book, {}, {}, ())) == [AccountLimit]
    assert book.balance(AccountId("user:1", "USD")) == 1000


def a_made_charge(command: ChargeCommand) -> Charge:
    (decision,) = decide([command], 10_000)
    assert isinstance(decision, Approved)
    return decision.charge


def test_a_known_key_replays_its_charge_whatever_the_balance() -> None:
    charge = a_made_charge(a_charge(key="a"))
    assert decide([a_charge(key="a")], 0, {_key_of(charge): charge}) == [Replayed(charge)]


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (a_charge(1000, key="a"), []),
        (a_charge(1001, key="a"), ["amount"]),
        (a_charge(1000, user_id=2, key="a"), ["user_id"]),
        (a_charge(1000, currency="EUR", key="a"), ["currency"]),
        (a_charge(1, user_id=2, currency="JPY", key="a"), ["user_id", "amount", "currency"]),
    ],
)
def test_mismatches_name_the_fields(other: ChargeCommand, fields: list[str]) -> None:
    charge = a_made_charge(a_charge(1000, key="a"))
    assert mismatches(other, charge) == fields
    decision = replay(other, charge)
    if not fields:
        assert decision == Replayed(charge)
    else:
        assert isinstance(decision, Declined)
        assert decision.reason.code == "idempotency-key-reused"
        assert decision.reason.fields["mismatched_fields"] == sorted(fields)


def claimed_by(*batch: ChargeCommand) -> dict[KeyId, UUID]:
    return refused_claims(claims(batch), batch, decide(batch))


def test_a_refused_key_is_given_back_and_an_approved_one_kept() -> None:
    poor, rich = a_charge(2000, key="poor"), a_charge(400, key="rich")
    assert list(claimed_by(poor, rich).values()) == [poor.id]


def test_a_key_is_kept_when_one_of_its_twins_was_approved() -> None:
    assert claimed_by(a_charge(2000, key="a"), a_charge(400, key="a")) == {}
    assert claimed_by(a_charge(400, key="a"), a_charge(2000, key="a")) == {}


def test_a_key_all_of_whose_twins_were_refused_is_given_back_once() -> None:
    first, second = a_charge(2000, key="a"), a_charge(3000, key="a")
    assert list(claimed_by(first, second).values()) == [first.id]

"""A charge as it is answered: what is put together by hand is what a JSON library would write."""

import re
from decimal import Decimal
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.access.model import Caller, Scope
from picopay.charges.model import Charge
from picopay.charges.schemas import (
    BatchItemIn,
    BatchResultOut,
    ChargeOut,
    TransactionOut,
    charge_json,
    plain_command,
    plain_items,
    result_json,
)
from picopay.infra.ids import new_id
from picopay.infra.json import dump
from picopay.kernel.errors import Invalid
from picopay.kernel.money import Money

CALLER = Caller(None, "default", frozenset(Scope))
KEYS = [None, "6f1c9c1e-3a52-4c53-9c1f-2b7f6a0d9e11"]
MONEY = [Money(1, "USD"), Money(10**15, "USD"), Money(500, "JPY"), Money(1234, "KWD")]


def a_charge(charge_id: UUID, money: Money, key: str | None, balance: int = 90_000) -> Charge:
    return Charge(charge_id, "default", 2**63 - 1, money, balance, key)


def transaction(charge: Charge) -> TransactionOut:
    money = charge.money
    return TransactionOut(charge.id, charge.user_id, money, money.currency, "success", charge.key)


def balance(charge: Charge) -> Money:
    return Money(charge.balance_after_minor, charge.money.currency)


@pytest.mark.parametrize("charge_id", [new_id(), uuid4()], ids=["minted", "read"])
@pytest.mark.parametrize("money", MONEY)
@pytest.mark.parametrize("key", KEYS)
def test_an_answer_is_its_schema_written_out(
    charge_id: UUID, money: Money, key: str | None
) -> None:
    charge = a_charge(charge_id, money, key)
    told = ChargeOut("Charge processed successfully", transaction(charge), balance(charge))
    assert charge_json(charge) == dump(told)
    for status in ("success", "replayed"):
        result = BatchResultOut(status, transaction(charge), balance(charge))
        assert result_json(status, charge).encode() == dump(result)


def test_a_balance_below_one_unit_keeps_its_decimals() -> None:
    charge = a_charge(new_id(), Money(100, "USD"), None, balance=5)
    assert b'"new_balance":0.05}' in charge_json(charge)
    assert orjson.loads(charge_json(charge))["new_balance"] == 0.05


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.decimals(), st.text(max_size=5),
    st.sampled_from([1, 2**63 - 1, 2**63, "1", "19.99", Decimal("1e400"), [], {}]),
)  # fmt: skip
FIELDS = st.sampled_from(["user_id", "amount", "currency", "idempotency_key", "note"])
PLAIN = {"user_id": 1, "amount": Decimal("19.99"), "currency": "USD", "idempotency_key": KEYS[1]}


@given(st.dictionaries(FIELDS, ANYTHING), st.sets(FIELDS))
def test_what_is_plain_reads_as_it_does_the_long_way(
    changed: dict[str, object], left_out: set[str]
) -> None:
    item = {k: v for k, v in (PLAIN | changed).items() if k not in left_out}
    if (plain := plain_items([item])) is None:
        return
    long_way = BatchItemIn.model_validate(item)
    assert {"idempotency_key": None, **plain[0]} == long_way.model_dump()
    try:
        asked = plain_command(plain[0], CALLER)
    except Invalid as refused:
        with pytest.raises(type(refused), match=f"^{re.escape(str(refused))}$"):
            long_way.to_item_command(CALLER)
    else:
        assert asked[1:] == long_way.to_item_command(CALLER)[1:]


def test_what_most_clients_send_is_plain() -> None:
    without_key = {k: v for k, v in PLAIN.items() if k != "idempotency_key"}
    assert plain_items([PLAIN, without_key, PLAIN | {"amount": 19}]) is not None


OTHERS = [
    PLAIN | {"amount": "19.99"},
    PLAIN | {"user_id": True},
    PLAIN | {"note": "which might be a key by another name"},
    PLAIN | {"idempotency_key": str(KEYS[1]).upper()},
    PLAIN | {"idempotency_key": f"{KEYS[1]}\n"},
    7,
]


@pytest.mark.parametrize("other", OTHERS)
def test_one_item_that_is_not_plain_sends_all_the_long_way(other: object) -> None:
    assert plain_items([PLAIN, other]) is None

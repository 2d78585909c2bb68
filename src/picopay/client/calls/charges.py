"""Charges, batches of them, and refunds: scope `charges`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from picopay.client.calls.pages import listing
from picopay.client.fields import Fields, Malformed, encode, exact
from picopay.client.model import (
    Amount,
    BatchResult,
    Charge,
    ChargeItem,
    ChargeMade,
    ItemProblem,
    Refund,
    new_key,
)
from picopay.client.wire import Call, Listing, Told, path

_PROBLEM_MEMBERS: Final = ("type", "title", "status", "detail", "code", "request_id")


def create(
    *, user_id: int, amount: Amount, currency: str, idempotency_key: UUID | str | None = None
) -> Call[ChargeMade]:
    """Take money from a user's balance, once for each key."""
    body = {"user_id": user_id, "amount": exact(amount), "currency": currency}
    return Call(
        method="POST",
        path="/charge",
        body=encode(body),
        key=new_key() if idempotency_key is None else str(idempotency_key),
        read=_read_made,
    )


def batch(items: Sequence[ChargeItem]) -> Call[list[BatchResult]]:
    """Up to 5000 charges, each standing alone, answered in order."""
    charges = [
        {
            "user_id": item.user_id,
            "amount": exact(item.amount),
            "currency": item.currency,
            "idempotency_key": str(item.idempotency_key),
        }
        for item in items
    ]
    return Call(
        method="POST",
        path="/v1/charges/batch",
        body=encode({"charges": charges}),
        read=lambda told: _read_batch(told, len(charges)),
    )


def get(charge_id: UUID | str) -> Call[Charge]:
    return Call(
        method="GET",
        path=path("/v1/charges/{}", charge_id),
        read=lambda told: _charge(Fields(told.json)),
    )


def list_all(
    *,
    user_id: int | None = None,
    currency: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    limit: int = 100,
) -> Listing[Charge]:
    """The merchant's charges, newest first; both times are exclusive."""
    params = {
        "user_id": user_id,
        "currency": currency,
        "created_after": created_after,
        "created_before": created_before,
        "limit": limit,
    }
    return listing("/v1/charges", params, _charge)


def refund(
    charge_id: UUID | str,
    *,
    amount: Amount | None = None,
    reason: str | None = None,
    idempotency_key: UUID | str | None = None,
) -> Call[Refund]:
    """Give money of a charge back, once for each key; without an amount, all that is left."""
    asked = {"amount": None if amount is None else exact(amount), "reason": reason}
    return Call(
        method="POST",
        path=path("/v1/charges/{}/refunds", charge_id),
        body=encode({name: value for name, value in asked.items() if value is not None}),
        key=new_key() if idempotency_key is None else str(idempotency_key),
        read=lambda told: _refund(Fields(told.json), told.key, replayed=told.replayed),
    )


def refunds(charge_id: UUID | str, *, limit: int = 100) -> Listing[Refund]:
    """The charge's refunds, newest first."""
    return listing(path("/v1/charges/{}/refunds", charge_id), {"limit": limit}, _refund)


def _read_made(told: Told) -> ChargeMade:
    return _made(Fields(told.json), replayed=told.replayed)


def _made(fields: Fields, *, replayed: bool) -> ChargeMade:
    charge = fields.one("transaction")
    money = charge.money("amount")
    return ChargeMade(
        charge.id("id"),
        charge.whole("user_id"),
        money,
        charge.text_or_none("idempotency_key"),
        fields.money("new_balance", money.currency),
        replayed,
    )


def _read_batch(told: Told, expected: int) -> list[BatchResult]:
    results = [_result(fields) for fields in Fields(told.json).each("results")]
    if len(results) != expected:
        raise Malformed(f"{len(results)} results of {expected} charges")
    return results


def _result(fields: Fields) -> BatchResult:
    status = fields.text("status")
    if fields.get("transaction") is not None:
        return BatchResult(status, _made(fields, replayed=status == "replayed"), None)
    problem = fields.one("problem")
    told = problem.besides(*_PROBLEM_MEMBERS)
    return BatchResult(
        status, None, ItemProblem(problem.text("code"), problem.text("detail"), told)
    )


def _charge(fields: Fields) -> Charge:
    return Charge(
        fields.id("id"),
        fields.whole("user_id"),
        fields.money("amount"),
        fields.text_or_none("idempotency_key"),
        fields.money("new_balance"),
        fields.money("refunded"),
        fields.moment("created_at"),
    )


def _refund(fields: Fields, key: str | None = None, *, replayed: bool = False) -> Refund:
    return Refund(
        fields.id("id"),
        fields.id("charge_id"),
        fields.money("amount"),
        fields.text_or_none("reason"),
        fields.text("status"),
        fields.money("charge_refunded"),
        fields.moment("created_at"),
        key,
        replayed,
    )

"""Users, their balances and deposits, scope `users`; accounts of any owner, scope `ledger`."""

from uuid import UUID

from picopay.client.calls.pages import listing
from picopay.client.fields import Fields, encode, exact
from picopay.client.model import Account, Amount, Deposit, Entry, User, new_key
from picopay.client.wire import Call, Listing, Told, path
from picopay.kernel.money import Money


def create(user_id: int) -> Call[User]:
    """Make a user known by this id; again is no error."""
    return Call(
        method="POST",
        path="/v1/users",
        body=encode({"id": user_id}),
        read=lambda told: _user(Fields(told.json)),
    )


def get(user_id: int) -> Call[User]:
    return Call(
        method="GET",
        path=path("/v1/users/{}", user_id),
        read=lambda told: _user(Fields(told.json)),
    )


def deposit(
    user_id: int, *, amount: Amount, currency: str, idempotency_key: UUID | str | None = None
) -> Call[Deposit]:
    """Deposit money from outside, once for each key."""
    return Call(
        method="POST",
        path=path("/v1/users/{}/deposits", user_id),
        body=encode({"amount": exact(amount), "currency": currency}),
        key=new_key() if idempotency_key is None else str(idempotency_key),
        read=_read_deposit,
    )


def entries(user_id: int, *, currency: str | None = None, limit: int = 100) -> Listing[Entry]:
    """A user's statement, newest first."""
    params = {"currency": currency, "limit": limit}
    return listing(path("/v1/users/{}/entries", user_id), params, _entry)


def get_account(owner: str) -> Call[Account]:
    """The balances of an owner, such as `user:7`, `merchant:default` or `external:acc_1`."""
    return Call(method="GET", path=path("/v1/accounts/{}", owner), read=_read_account)


def account_entries(owner: str, *, currency: str | None = None, limit: int = 100) -> Listing[Entry]:
    """An owner's statement, newest first."""
    params = {"currency": currency, "limit": limit}
    return listing(path("/v1/accounts/{}/entries", owner), params, _entry)


def _read_account(told: Told) -> Account:
    fields = Fields(told.json)
    return Account(fields.text("owner"), _balances(fields))


def _read_deposit(told: Told) -> Deposit:
    fields = Fields(told.json)
    return Deposit(
        fields.id("id"),
        fields.whole("user_id"),
        fields.money("amount"),
        fields.money("new_balance"),
        told.key,
        told.replayed,
    )


def _user(fields: Fields) -> User:
    return User(fields.whole("id"), fields.moment("created_at"), _balances(fields))


def _balances(fields: Fields) -> tuple[Money, ...]:
    return tuple(each.money("balance") for each in fields.each("balances"))


def _entry(fields: Fields) -> Entry:
    return Entry(
        fields.id("posting_id"),
        fields.text("kind"),
        fields.text("counterparty"),
        fields.money("amount"),
        fields.money("balance_after"),
        fields.whole("version"),
        fields.moment("created_at"),
    )

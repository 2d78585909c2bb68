"""Transaction webhooks, from their sender's side, and what became of them."""

from picopay.client.calls.pages import listing
from picopay.client.fields import Fields, encode, exact
from picopay.client.model import NewTransaction, Transaction, TransactionStatus
from picopay.client.webhooks import Signer
from picopay.client.wire import Call, Credential, Listing, path


def send(transaction: NewTransaction, *, signer: Signer | None = None) -> Call[None]:
    """Tell of a transaction. Once it returns, the transaction is kept, and processed once."""
    body = encode(
        {
            "transaction_id": transaction.transaction_id,
            "source_account": transaction.source_account,
            "destination_account": transaction.destination_account,
            "amount": exact(transaction.amount),
            "currency": transaction.currency,
        }
    )
    return Call(
        method="POST",
        path="/v1/webhooks/transactions",
        body=body,
        headers={} if signer is None else signer.headers(body),
        credential=Credential.NONE,
        read=lambda _told: None,
    )


def get(transaction_id: str) -> Call[Transaction]:
    return Call(
        method="GET",
        path=path("/v1/transactions/{}", transaction_id),
        read=lambda told: _transaction(Fields(told.json)),
    )


def list_all(
    *, status: TransactionStatus | None = None, account: str | None = None, limit: int = 100
) -> Listing[Transaction]:
    """Transactions, newest first; `account` is the source or the destination."""
    params = {"status": status, "account": account, "limit": limit}
    return listing("/v1/transactions", params, _transaction)


def _transaction(fields: Fields) -> Transaction:
    return Transaction(
        fields.text("transaction_id"),
        fields.text("source_account"),
        fields.text("destination_account"),
        fields.money("amount"),
        fields.text("status"),
        fields.moment("created_at"),
        fields.moment_or_none("processed_at"),
    )

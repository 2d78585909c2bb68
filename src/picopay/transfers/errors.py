"""What clients of transfers are told."""

from picopay.kernel.errors import Refused


class TransactionNotFound(Refused):
    code = "transaction-not-found"

    def __init__(self, transaction_id: str) -> None:
        super().__init__(f"there is no transaction {transaction_id}")

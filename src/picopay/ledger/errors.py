"""Why the ledger refuses a posting."""

from picopay.kernel.errors import Refused


class InsufficientFunds(Refused):
    """The debit account may not be overdrawn, and its balance is below the amount."""

    code = "insufficient-balance"


class AccountLimit(Refused):
    """The account's running totals would leave 64 bits."""

    code = "account-limit"

    def __init__(self) -> None:
        super().__init__("the account's running totals would exceed 64 bits")


class AccountNotFound(Refused):
    code = "account-not-found"

"""Why the ledger refuses a posting."""

from picopay.kernel.errors import Refused


class InsufficientFunds(Refused):
    """The debit account may not be overdrawn, and its balance is below the amount."""

    code = "insufficient-balance"


class AccountLimit(Refused):
    """The account's running totals would leave 64 bits."""

    code = "account-limit"


class AccountNotFound(Refused):
    code = "account-not-found"

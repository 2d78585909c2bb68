"""Why a charge is refused, beyond what ledger, users and idempotency say."""

from uuid import UUID

from picopay.kernel.errors import Refused
from picopay.kernel.money import Money


class ChargeFailed(Refused):
    """The one charge cannot be processed, for a reason of ours; it was not made."""

    code = "internal-error"

    def __init__(self, charge_id: UUID) -> None:
        super().__init__("the charge was not made; the error has been logged", charge_id=charge_id)


class ChargeNotFound(Refused):
    code = "charge-not-found"

    def __init__(self, charge_id: object) -> None:
        super().__init__(f"there is no charge {charge_id}")


class RefundExceedsCharge(Refused):
    """More was asked for than is left of the charge, or nothing is left."""

    code = "refund-exceeds-charge"

    def __init__(self, refundable: Money) -> None:
        super().__init__(
            f"{refundable.text} {refundable.currency} of the charge are left to be refunded",
            refundable=refundable.major,
            currency=refundable.currency,
        )


class MerchantBalanceInsufficient(Refused):
    """The merchant no longer has what the charge has brought him."""

    code = "merchant-balance-insufficient"

    def __init__(self, available: Money, required: Money) -> None:
        super().__init__(
            f"the merchant's balance is {available.text} {available.currency},"
            f" the refund is {required.text}",
            balance=available.major,
            required=required.major,
            currency=required.currency,
        )

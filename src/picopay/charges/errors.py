"""Why a charge is refused, beyond what ledger, users and idempotency say."""

from uuid import UUID

from picopay.kernel.errors import Refused


class Overloaded(Refused):
    code = "overloaded"


class ChargeFailed(Refused):
    """The one charge cannot be processed, for a reason of ours; it was not made."""

    code = "internal-error"

    def __init__(self, charge_id: UUID) -> None:
        super().__init__("the charge was not made; the error has been logged", charge_id=charge_id)


class ChargeNotFound(Refused):
    code = "charge-not-found"

    def __init__(self, charge_id: object) -> None:
        super().__init__(f"there is no charge {charge_id}")

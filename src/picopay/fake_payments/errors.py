"""What clients of the fake payment provider are told."""

from picopay.kernel.errors import Refused


class FakePaymentNotFound(Refused):
    code = "fake-payment-not-found"

    def __init__(self, payment_id: str) -> None:
        super().__init__(f"there is no fake payment {payment_id}")


class FakePaymentNotRefundable(Refused):
    """Only what has succeeded can be given back."""

    code = "fake-payment-not-refundable"

    def __init__(self, status: str) -> None:
        super().__init__(f"the payment is {status}: only one that succeeded is refunded")

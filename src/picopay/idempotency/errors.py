"""Why an idempotency key is refused."""

from collections.abc import Iterable

from picopay.kernel.errors import Refused


class KeyInvalid(Refused):
    code = "idempotency-key-invalid"


class KeyReused(Refused):
    """The key has already made something else: the same key must mean the same request."""

    code = "idempotency-key-reused"

    def __init__(self, mismatched_fields: Iterable[str]) -> None:
        names = sorted(mismatched_fields)
        super().__init__(
            f"this idempotency key belongs to a request with another {', '.join(names)}",
            mismatched_fields=names,
        )

"""What every refusal of ours is: a fact with a stable code, never a message to be parsed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class Refused(Exception):
    """A request that is answered with a problem; subclasses are facts, e.g. `UserNotFound`.

    `code` is stable and public (see docs/reference/errors.md), `detail` is for people, and
    `fields` are the extra members of the problem document (RFC 9457, section 3.2).
    """

    code: ClassVar[str]
    # What an answer over HTTP says besides, for programs that read no bodies.
    headers: Mapping[str, str] = MappingProxyType({})

    # An HTTP status other than the code's own, where an API has always answered so.
    status: ClassVar[int | None] = None

    def __init__(self, detail: str, **fields: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields: Mapping[str, object] = fields


class Invalid(Refused):
    """The input breaks a rule; `errors` lists each place and why."""

    code = "validation"

    def __init__(self, detail: str, *errors: tuple[str, str]) -> None:
        super().__init__(detail, errors=[{"field": field, "message": why} for field, why in errors])
        self.errors = errors

    @classmethod
    def of(cls, *errors: tuple[str, str]) -> "Invalid":
        """Told by the first of its errors, and how many more there are."""
        (field, why), *others = errors
        more = f", and {len(others)} more" if others else ""
        return cls(f"{field}: {why}{more}", *errors)


class Overloaded(Refused):
    """Too much is waiting, or something is held for too long: nothing was done, try again soon."""

    code = "overloaded"

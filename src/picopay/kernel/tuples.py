"""Named tuples where they are made by the thousand."""

from typing import Any, Final, Protocol, TypeVar, cast

T = TypeVar("T")


class _New(Protocol):
    def __call__(self, kind: type[T], values: tuple[Any, ...], /) -> T: ...


# What a named tuple's own constructor comes to after a call of Python's, in half its time. It
# counts no values and fills in no defaults: all must be given, in order.
new: Final = cast("_New", tuple.__new__)

"""Lists of the `/v1` kind, and of orders: an envelope with a cursor."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from picopay.client.fields import Fields
from picopay.client.model import Page
from picopay.client.wire import Call, Credential, Listing, Param, Told

T = TypeVar("T")


def listing(
    path: str,
    params: Mapping[str, Param],
    read_item: Callable[[Fields], T],
    credential: Credential = Credential.API_KEY,
) -> Listing[T]:
    def read(told: Told) -> Page[T]:
        page = Fields(told.json)
        cursor = page.text("next_cursor") if page.flag("has_more") else None
        return Page(tuple(read_item(item) for item in page.each("data")), cursor)

    return Listing(Call(method="GET", path=path, params=params, credential=credential, read=read))

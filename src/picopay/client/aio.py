"""The client for coroutines: `AsyncClient`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from secrets import SystemRandom
from time import monotonic
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from picopay.client.aio_http import AioHttp
from picopay.client.calls import charges, operations, orders, products, transactions, users
from picopay.client.errand import Errand
from picopay.client.model import Page
from picopay.client.options import DEFAULTS, Options
from picopay.client.retries import Done, Pause
from picopay.client.wire import Call, Listing, caller_of, checked

P = ParamSpec("P")
T = TypeVar("T")


class AsyncSender:
    """Sends what `calls` describe, again where that is safe, until the deadline."""

    def __init__(
        self, url: str, api_key: str | None, admin_secret: str | None, options: Options
    ) -> None:
        self._caller = caller_of(url, api_key, admin_secret)
        self._options = options
        self._http = AioHttp(url, options)
        self._chance = SystemRandom().random

    async def send(self, call: Call[T]) -> T:
        errand = Errand(call, self._caller, self._options, monotonic())
        while True:
            seconds = errand.try_seconds(monotonic())
            outcome = await self._http.exchange(errand.request, seconds)
            match errand.heard(outcome, monotonic(), self._chance()):
                case Done(value):
                    return value
                case Pause(seconds):
                    await asyncio.sleep(seconds)

    def one(self, describe: Callable[P, Call[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(describe)
        async def do(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.send(describe(*args, **kwargs))

        return do

    def every(self, describe: Callable[P, Listing[T]]) -> "Callable[P, AsyncPages[T]]":
        @wraps(describe)
        def do(*args: P.args, **kwargs: P.kwargs) -> AsyncPages[T]:
            return AsyncPages(describe(*args, **kwargs), self)

        return do

    async def close(self) -> None:
        await self._http.close()


@dataclass(frozen=True, slots=True)
class AsyncPages(Generic[T]):
    """A list, fetched page by page while it is gone through: `async for charge in …`."""

    _listing: Listing[T]
    _sender: AsyncSender

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.data:
                yield item

    async def pages(self, cursor: str | None = None) -> AsyncIterator[Page[T]]:
        """Page by page; from a `next_cursor` of before, if one is given."""
        while True:
            page = checked(await self._sender.send(self._listing.after(cursor)), cursor)
            yield page
            if (cursor := page.next_cursor) is None:
                return


class AsyncCharges:
    def __init__(self, sender: AsyncSender) -> None:
        self.create: Final = sender.one(charges.create)
        self.batch: Final = sender.one(charges.batch)
        self.get: Final = sender.one(charges.get)
        self.list: Final = sender.every(charges.list_all)
        self.refund: Final = sender.one(charges.refund)
        self.refunds: Final = sender.every(charges.refunds)


class AsyncUsers:
    def __init__(self, sender: AsyncSender) -> None:
        self.create: Final = sender.one(users.create)
        self.get: Final = sender.one(users.get)
        self.deposit: Final = sender.one(users.deposit)
        self.entries: Final = sender.every(users.entries)


class AsyncAccounts:
    def __init__(self, sender: AsyncSender) -> None:
        self.get: Final = sender.one(users.get_account)
        self.entries: Final = sender.every(users.account_entries)


class AsyncOrders:
    def __init__(self, sender: AsyncSender) -> None:
        self.place: Final = sender.one(orders.place)
        self.get: Final = sender.one(orders.get)
        self.events: Final = sender.one(orders.events)
        self.cancel: Final = sender.one(orders.cancel)
        self.list: Final = sender.every(orders.list_all)
        self.refunds: Final = sender.every(orders.refunds)
        self.book_refund: Final = sender.one(orders.book_refund)


class AsyncProducts:
    def __init__(self, sender: AsyncSender) -> None:
        self.list: Final = sender.every(products.list_all)
        self.get: Final = sender.one(products.get)
        self.get_any: Final = sender.one(products.get_any)
        self.create: Final = sender.one(products.create)
        self.update: Final = sender.one(products.update)
        self.archive: Final = sender.one(products.archive)


class AsyncTransactions:
    def __init__(self, sender: AsyncSender) -> None:
        self.send: Final = sender.one(transactions.send)
        self.get: Final = sender.one(transactions.get)
        self.list: Final = sender.every(transactions.list_all)


class AsyncDeadLetters:
    def __init__(self, sender: AsyncSender) -> None:
        self.list: Final = sender.every(operations.list_dead_letters)
        self.get: Final = sender.one(operations.get_dead_letter)
        self.replay: Final = sender.one(operations.replay)
        self.discard: Final = sender.one(operations.discard)


class AsyncClient:
    """A PicoPay server, for any number of tasks: make one inside the running loop, and close it.

    `api_key` is for what needs a scope, `admin_secret` for products and the list of orders.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        admin_secret: str | None = None,
        options: Options = DEFAULTS,
    ) -> None:
        self._sender: Final = AsyncSender(url, api_key, admin_secret, options)
        self.charges: Final = AsyncCharges(self._sender)
        self.users: Final = AsyncUsers(self._sender)
        self.accounts: Final = AsyncAccounts(self._sender)
        self.orders: Final = AsyncOrders(self._sender)
        self.products: Final = AsyncProducts(self._sender)
        self.transactions: Final = AsyncTransactions(self._sender)
        self.dead_letters: Final = AsyncDeadLetters(self._sender)
        self.health: Final = self._sender.one(operations.health)

    async def send(self, call: Call[T]) -> T:
        """What a function of `picopay.client.calls` describes: to know its key before."""
        return await self._sender.send(call)

    async def close(self) -> None:
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

"""The client for threads: `Client`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from secrets import SystemRandom
from time import monotonic, sleep
from typing import Final, Generic, ParamSpec, Self, TypeVar

from picopay.client.calls import charges, operations, orders, products, transactions, users
from picopay.client.errand import Errand
from picopay.client.model import Page
from picopay.client.options import DEFAULTS, Options
from picopay.client.retries import Done, Pause
from picopay.client.sync_http import SyncHttp
from picopay.client.wire import Call, Listing, caller_of, checked

P = ParamSpec("P")
T = TypeVar("T")


class Sender:
    """Sends what `calls` describe, again where that is safe, until the deadline."""

    def __init__(
        self, url: str, api_key: str | None, admin_secret: str | None, options: Options
    ) -> None:
        self._caller = caller_of(url, api_key, admin_secret)
        self._options = options
        self._http = SyncHttp(url, options)
        self._chance = SystemRandom().random

    def send(self, call: Call[T]) -> T:
        errand = Errand(call, self._caller, self._options, monotonic())
        while True:
            seconds = errand.try_seconds(monotonic())
            outcome = self._http.exchange(errand.request, seconds)
            match errand.heard(outcome, monotonic(), self._chance()):
                case Done(value):
                    return value
                case Pause(seconds):
                    sleep(seconds)

    def one(self, describe: Callable[P, Call[T]]) -> Callable[P, T]:
        @wraps(describe)
        def do(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.send(describe(*args, **kwargs))

        return do

    def every(self, describe: Callable[P, Listing[T]]) -> "Callable[P, Pages[T]]":
        @wraps(describe)
        def do(*args: P.args, **kwargs: P.kwargs) -> Pages[T]:
            return Pages(describe(*args, **kwargs), self)

        return do

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True, slots=True)
class Pages(Generic[T]):
    """A list, fetched page by page while it is gone through: `for charge in …`."""

    _listing: Listing[T]
    _sender: Sender

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.data

    def pages(self, cursor: str | None = None) -> Iterator[Page[T]]:
        """Page by page; from a `next_cursor` of before, if one is given."""
        while True:
            page = checked(self._sender.send(self._listing.after(cursor)), cursor)
            yield page
            if (cursor := page.next_cursor) is None:
                return


class Charges:
    def __init__(self, sender: Sender) -> None:
        self.create: Final = sender.one(charges.create)
        self.batch: Final = sender.one(charges.batch)
        self.get: Final = sender.one(charges.get)
        self.list: Final = sender.every(charges.list_all)
        self.refund: Final = sender.one(charges.refund)
        self.refunds: Final = sender.every(charges.refunds)


class Users:
    def __init__(self, sender: Sender) -> None:
        self.create: Final = sender.one(users.create)
        self.get: Final = sender.one(users.get)
        self.deposit: Final = sender.one(users.deposit)
        self.entries: Final = sender.every(users.entries)


class Accounts:
    def __init__(self, sender: Sender) -> None:
        self.get: Final = sender.one(users.get_account)
        self.entries: Final = sender.every(users.account_entries)


class Orders:
    def __init__(self, sender: Sender) -> None:
        self.place: Final = sender.one(orders.place)
        self.get: Final = sender.one(orders.get)
        self.events: Final = sender.one(orders.events)
        self.cancel: Final = sender.one(orders.cancel)
        self.list: Final = sender.every(orders.list_all)
        self.refunds: Final = sender.every(orders.refunds)
        self.book_refund: Final = sender.one(orders.book_refund)


class Products:
    def __init__(self, sender: Sender) -> None:
        self.list: Final = sender.every(products.list_all)
        self.get: Final = sender.one(products.get)
        self.get_any: Final = sender.one(products.get_any)
        self.create: Final = sender.one(products.create)
        self.update: Final = sender.one(products.update)
        self.archive: Final = sender.one(products.archive)


class Transactions:
    def __init__(self, sender: Sender) -> None:
        self.send: Final = sender.one(transactions.send)
        self.get: Final = sender.one(transactions.get)
        self.list: Final = sender.every(transactions.list_all)


class DeadLetters:
    def __init__(self, sender: Sender) -> None:
        self.list: Final = sender.every(operations.list_dead_letters)
        self.get: Final = sender.one(operations.get_dead_letter)
        self.replay: Final = sender.one(operations.replay)
        self.discard: Final = sender.one(operations.discard)


class Client:
    """A PicoPay server, for any number of threads: make one a process, and close it.

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
        self._sender: Final = Sender(url, api_key, admin_secret, options)
        self.charges: Final = Charges(self._sender)
        self.users: Final = Users(self._sender)
        self.accounts: Final = Accounts(self._sender)
        self.orders: Final = Orders(self._sender)
        self.products: Final = Products(self._sender)
        self.transactions: Final = Transactions(self._sender)
        self.dead_letters: Final = DeadLetters(self._sender)
        self.health: Final = self._sender.one(operations.health)

    def send(self, call: Call[T]) -> T:
        """What a function of `picopay.client.calls` describes: to know its key before."""
        return self._sender.send(call)

    def close(self) -> None:
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

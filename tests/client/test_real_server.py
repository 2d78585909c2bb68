"""Both clients on a real server: what they ask for is done, once, and told exactly."""

import asyncio
import os
import re
import secrets
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import pytest
from tests.bad_server import misbehaving, passing_on
from tests.client.conftest import WEBHOOK_SECRET, Ask
from tests.conftest import Stores
from tests.forks import run_script
from tests.processes import ADMIN_SECRET, API_KEY, Server, free_port

from picopay.client.aio import AsyncClient
from picopay.client.calls import charges, operations, orders, products, transactions, users
from picopay.client.errors import (
    Declined,
    Invalid,
    KeyReused,
    NotFound,
    RateLimited,
    Unanswered,
    Unauthorized,
)
from picopay.client.model import ChargeItem, NewTransaction, OrderLine, new_key
from picopay.client.options import Options
from picopay.client.retries import Limits
from picopay.client.sync import Client
from picopay.client.webhooks import Signer
from picopay.kernel.money import Money
from picopay.kernel.signing import Scheme

ONCE = Options(limits=Limits(attempts_max=1))
SIGNER = Signer(WEBHOOK_SECRET, Scheme.STANDARD)


def a_user(ask: Ask, url: str, amount: str = "100.00", currency: str = "USD") -> int:
    user_id = secrets.randbelow(2**62) + 1
    ask(url, users.create(user_id))
    ask(url, users.deposit(user_id, amount=amount, currency=currency))
    return user_id


def balance(ask: Ask, url: str, user_id: int) -> str:
    (money,) = ask(url, users.get(user_id)).balances
    return money.text


def test_a_charge_its_replay_and_its_refund(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    call = charges.create(user_id=user_id, amount=Decimal("19.90"), currency="USD")
    made = ask(picopay.url, call)
    again = ask(picopay.url, call)
    assert made.amount == Money(1990, "USD")
    assert made.new_balance.major == Decimal("80.10")
    assert (made.idempotency_key, made.replayed) == (call.key, False)
    assert again == replace(made, replayed=True)

    refund = charges.refund(made.id, amount="4.90", reason="late")
    given = ask(picopay.url, refund, refund)
    assert (given.amount.text, given.charge_refunded.text, given.replayed) == ("4.90", "4.90", True)
    (listed,) = ask(picopay.url, charges.refunds(made.id).first).data
    assert replace(given, idempotency_key=None, replayed=False) == listed
    read = ask(picopay.url, charges.get(made.id))
    assert (read.refunded.text, read.new_balance, read.amount) == (
        "4.90", made.new_balance, made.amount,
    )  # fmt: skip
    assert balance(ask, picopay.url, user_id) == "85.00"


def test_amounts_are_exact_in_every_currency(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url, "9007199254.993", "KWD")  # more than a float can hold
    ask(picopay.url, users.deposit(user_id, amount=900, currency="JPY"))
    found = {money.currency: money for money in ask(picopay.url, users.get(user_id)).balances}
    assert found == {"KWD": Money(9007199254993, "KWD"), "JPY": Money(900, "JPY")}
    with pytest.raises(Invalid) as raised:
        ask(picopay.url, users.deposit(user_id, amount="0.5", currency="JPY"))
    assert raised.value.fields["errors"] == [
        {"field": "amount", "message": "has more than the 0 decimals of JPY"}
    ]


def test_refusals_are_told_by_class_code_and_fields(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    options = Options(request_id=lambda: "seen-by-the-test")
    key = str(uuid4())
    one = charges.create(user_id=user_id, amount=1, currency="USD", idempotency_key=key)
    other = charges.create(user_id=user_id, amount=2, currency="USD", idempotency_key=key)
    with pytest.raises(KeyReused) as reused:
        ask(picopay.url, one, other, options=options)
    assert reused.value.fields["mismatched_fields"] == ["amount"]
    assert (reused.value.status, reused.value.request_id) == (422, "seen-by-the-test")
    assert reused.value.idempotency_key == key
    with pytest.raises(Declined) as declined:
        ask(picopay.url, charges.create(user_id=user_id, amount=1000, currency="USD"))
    assert declined.value.code == "insufficient-balance"
    with pytest.raises(NotFound) as unknown:
        ask(picopay.url, charges.create(user_id=user_id + 1, amount=1, currency="USD"))
    assert unknown.value.code == "user-not-found"


def test_credentials_that_are_missing_or_wrong(picopay: Server) -> None:
    with Client(picopay.url) as nobody, pytest.raises(Unauthorized, match="api-key-invalid"):
        nobody.users.get(1)
    with Client(picopay.url, admin_secret="wrong") as forger, pytest.raises(Unauthorized):
        forger.products.create(name="n", price=1)


def test_a_batch_is_answered_item_by_item(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    items = [
        ChargeItem(user_id, "30.00", "USD"),
        ChargeItem(user_id, "80.00", "USD"),
        ChargeItem(user_id, "0.001", "USD"),
    ]
    first = ask(picopay.url, charges.batch(items))
    again = ask(picopay.url, charges.batch(items))
    assert [result.status for result in first] == ["success", "declined", "rejected"]
    assert [result.status for result in again] == ["replayed", "declined", "rejected"]
    made = first[0].charge
    assert made is not None
    assert made.new_balance.text == "70.00"
    assert made.idempotency_key == items[0].idempotency_key
    assert again[0].charge == replace(made, replayed=True)
    codes = [result.problem.code for result in first if result.problem is not None]
    assert codes == ["insufficient-balance", "validation"]


def test_a_statement_is_the_same_by_user_and_by_owner(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    ask(picopay.url, charges.create(user_id=user_id, amount="0.01", currency="USD"))
    by_user = ask(picopay.url, users.entries(user_id).first).data
    by_owner = ask(picopay.url, users.account_entries(f"user:{user_id}", currency="USD").first).data
    assert by_user == by_owner
    assert [entry.amount.text for entry in by_user] == ["-0.01", "100.00"]
    assert [entry.balance_after.text for entry in by_user] == ["99.99", "100.00"]
    account = ask(picopay.url, users.get_account(f"user:{user_id}"))
    assert account.balances == (Money(9999, "USD"),)


def test_an_answer_that_is_lost_after_the_commit_charges_once(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    call = charges.create(user_id=user_id, amount="40.00", currency="USD")
    lost, answered = (
        passing_on(picopay.port, answered=False),
        passing_on(picopay.port, answered=True),
    )
    with misbehaving(lost, lost, answered) as network:
        made = ask(network.url, call)
    assert {got.headers["idempotency-key"] for got in network.got} == {call.key}
    assert len(network.got) == 3
    assert made.replayed
    assert made.new_balance.text == "60.00"
    assert balance(ask, picopay.url, user_id) == "60.00"


def test_a_later_process_goes_on_with_the_key_of_the_error(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    wanted = charges.create(user_id=user_id, amount="40.00", currency="USD")
    with (
        misbehaving(passing_on(picopay.port, answered=False)) as network,
        pytest.raises(Unanswered) as raised,
    ):
        ask(network.url, wanted, options=ONCE)
    again = charges.create(
        user_id=user_id,
        amount="40.00",
        currency="USD",
        idempotency_key=raised.value.idempotency_key,
    )
    assert ask(picopay.url, again).replayed
    assert balance(ask, picopay.url, user_id) == "60.00"


def test_a_shop(ask: Ask, picopay: Server) -> None:
    url = picopay.url
    product = ask(url, products.create(name=f"Mug {uuid4()}", price="20.00", stock=3))
    assert (str(product.price), product.currency, product.stock) == ("20.00", "USD", 3)
    assert product.archived_at is None
    email = f"{uuid4().hex}@example.com"
    call = orders.place(user_email=email, items=[OrderLine(product.id, 2)])
    placed = ask(url, call)
    assert (placed.status, str(placed.items_total), placed.currency) == ("reserved", "40.00", "USD")
    assert not placed.replayed
    assert ask(url, call) == replace(placed, replayed=True)
    with pytest.raises(Declined) as short:
        ask(url, orders.place(user_email=email, items=[OrderLine(product.id, 2)]))
    assert short.value.fields["available"] == 1
    assert ask(url, orders.get(placed.id)).items == placed.items
    assert ask(url, orders.cancel(placed.id)).status == "canceled"
    with pytest.raises(Declined, match="order-not-cancelable"):
        ask(url, orders.cancel(placed.id))
    story = [event.event for event in ask(url, orders.events(placed.id))]
    assert story[0] == "order.placed"
    (listed,) = ask(url, orders.list_all(user_email=email, status="canceled").first).data
    assert listed.id == placed.id
    assert ask(url, products.update(product.id, price=Decimal("21.5"))).price == Decimal("21.50")
    assert ask(url, products.archive(product.id), products.archive(product.id)) is None
    with pytest.raises(NotFound):
        ask(url, products.get(product.id))
    assert ask(url, products.get_any(product.id)).archived_at is not None


def test_a_limit_that_is_reached_is_told_with_its_end(ask: Ask, picopay: Server) -> None:
    product = ask(picopay.url, products.create(name="Mug", price="20.00", stock=100))
    email = f"{uuid4().hex}@example.com"
    calls = [orders.place(user_email=email, items=[OrderLine(product.id, 1)]) for _ in range(6)]
    with pytest.raises(RateLimited) as raised:
        ask(picopay.url, *calls, options=ONCE)
    assert 0 < (raised.value.retry_after_seconds or 0) <= 60


@pytest.mark.parametrize("name", ["txn", "a/b", "..", "a?b#c%20"])
def test_transactions_of_any_name(ask: Ask, picopay: Server, name: str) -> None:
    wanted = NewTransaction(f"{name}{uuid4().hex}", "acc_1", "acc_2", "15.50", "EUR")
    call = transactions.send(wanted, signer=SIGNER)
    assert ask(picopay.url, call, call) is None
    found = ask(picopay.url, transactions.get(wanted.transaction_id))
    assert (found.status, found.amount) == ("PROCESSING", Money(1550, "EUR"))
    newest = ask(picopay.url, transactions.list_all(account="acc_1", limit=1).first).data
    assert newest == (found,)
    with pytest.raises(Unauthorized, match="signature-invalid"):
        ask(picopay.url, transactions.send(wanted))


def test_what_operators_ask(ask: Ask, picopay: Server) -> None:
    assert ask(picopay.url, operations.health()).status == "healthy"
    assert ask(picopay.url, operations.list_dead_letters(consumer="nobody's").first).data == ()
    with pytest.raises(NotFound, match="dead-letter-not-found"):
        ask(picopay.url, operations.get_dead_letter(uuid4()))
    assert ask(picopay.url, operations.replay([uuid4()], note="a test")).resolved == 0
    assert ask(picopay.url, operations.discard([uuid4()], note="a test")).matched == 0


def test_a_list_is_gone_through_to_its_end(ask: Ask, picopay: Server) -> None:
    user_id = a_user(ask, picopay.url)
    made = [
        ask(picopay.url, charges.create(user_id=user_id, amount=n, currency="USD"))
        for n in range(1, 6)
    ]
    expected = [charge.id for charge in reversed(made)]
    word = uuid4().hex
    named = [ask(picopay.url, products.create(name=f"{word} {n}", price=1)).id for n in range(3)]
    with Client(picopay.url, api_key=API_KEY) as client:
        assert [charge.id for charge in client.charges.list(user_id=user_id, limit=2)] == expected
        pages = client.charges.list(user_id=user_id, limit=2)
        first, *_ = pages.pages()
        rest = [charge.id for page in pages.pages(first.next_cursor) for charge in page.data]
        assert rest == expected[2:]
        found = client.products.list(q=word, sort_by="name", sort_desc=False, limit=1)
        assert [product.id for product in found] == named

    async def asynchronously() -> None:
        async with AsyncClient(picopay.url, api_key=API_KEY) as client:
            listed = client.charges.list(user_id=user_id, limit=2)
            assert [charge.id async for charge in listed] == expected
            found = client.products.list(q=word, sort_by="name", sort_desc=False, limit=1)
            assert [product.id async for product in found] == named

    asyncio.run(asynchronously())


EXAMPLES = Path(__file__).parents[2] / "examples"


def _environment(picopay: Server, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PICOPAY_URL": picopay.url,
        "PICOPAY_API_KEY": API_KEY,
        "KEY_FILE": str(folder / "key"),
        "WEBHOOK_SECRET": WEBHOOK_SECRET,
    }


def test_the_examples_run_as_they_say(picopay: Server, tmp_path: Path) -> None:
    environment = _environment(picopay, tmp_path)

    def run(name: str, *arguments: object) -> str:
        ran = run_script(EXAMPLES / name, list(map(str, arguments)), environment, cwd=tmp_path)
        assert not ran.stderr, ran.stderr
        return ran.stdout

    user_id = secrets.randbelow(2**62) + 1
    with Client(picopay.url, api_key=API_KEY) as client:
        client.users.create(user_id)
        client.users.deposit(user_id, amount=30, currency="USD")
        # As if the process had died after its charge was made: the key is still there.
        key = new_key()
        (tmp_path / "key").write_text(key)
        client.charges.create(user_id=user_id, amount="19.90", currency="USD", idempotency_key=key)
    told = run("charge.py", user_id, "19.90", "USD")
    assert told == "charged 19.90 USD, as was known already; 10.10 are left\n"
    assert run("charge.py", user_id, "4.00", "USD") == "charged 4.00 USD; 6.10 are left\n"
    assert run("charge.py", user_id, "7.00", "USD").startswith("declined: ")
    assert not (tmp_path / "key").exists()
    assert run("async_charge.py", user_id, user_id, 2**62 + 1).splitlines() in (
        [f"user {user_id}: 1.10 USD are left", f"user {user_id}: insufficient-balance",
         f"user {2**62 + 1}: nobody of that name"],
        [f"user {user_id}: insufficient-balance", f"user {user_id}: 1.10 USD are left",
         f"user {2**62 + 1}: nobody of that name"],
    )  # fmt: skip
    assert run("paginate.py", user_id) == "3 charges\n28.90 USD\n"


def test_the_receiver_takes_what_is_genuine_once(picopay: Server, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, EXAMPLES / "webhook_receiver.py", str(port)]
    with subprocess.Popen(
        command, env=_environment(picopay, tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as receiver:  # fmt: skip
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        try:
            body = b'{"amount": 19.90}'
            genuine = dict(SIGNER.headers(body))
            forged = {**genuine, "webhook-timestamp": "1"}
            statuses = [_posted(port, body, each) for each in (genuine, genuine, forged)]
        finally:
            receiver.terminate()
        assert statuses == [204, 204, 401]
        told = receiver.stdout.read()
    received = f"received {genuine['webhook-id']}: {{'amount': Decimal('19.90')}}"
    assert told.splitlines() == [received, "rejected: too-old"]


def _posted(port: int, body: bytes, headers: dict[str, str]) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


GUIDE = (Path(__file__).parents[2] / "docs/guides/python-client.md").read_text()


def test_the_guide_runs_from_its_first_line_to_its_last(
    clean: Stores, picopay: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {
        "API_KEY": API_KEY,
        "ADMIN_SECRET": ADMIN_SECRET,
        "WEBHOOK_SECRET": WEBHOOK_SECRET,
    }
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    for block in blocks:
        exec(block.replace("http://localhost:8000", picopay.url), known)  # noqa: S102 - ours
    printed = capsys.readouterr().out
    promised = re.findall(r"^ *print.*  # (?:… )?(\S+)$", GUIDE, re.MULTILINE)
    assert promised == ["80.10", "70.10", "PROCESSING"]
    assert all(f"{each}\n" in printed for each in promised)

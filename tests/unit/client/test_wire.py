"""Requests as values: who calls, what is escaped, and where a list goes on."""

from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay import __version__
from picopay.client.calls import charges, operations, orders, products, transactions, users
from picopay.client.errors import AnswerUnreadable
from picopay.client.fields import Malformed
from picopay.client.model import ChargeItem, NewTransaction, Page
from picopay.client.webhooks import Signer
from picopay.client.wire import (
    Answer,
    Caller,
    Told,
    caller_of,
    checked,
    next_cursor,
    path,
    request_of,
)

CALLER = Caller("", "an-api-key", "an-admin-secret")
KEY = "6f1c9c1e-3a52-4c53-9c1f-2b7f6a0d9e11"


def test_a_charge_is_one_request() -> None:
    call = charges.create(user_id=1, amount="100.00", currency="USD", idempotency_key=KEY)
    request = request_of(call, CALLER, "request-1")
    assert request.method == "POST"
    assert request.target == "/charge"
    assert request.body == b'{"user_id":1,"amount":"100.00","currency":"USD"}'
    assert request.headers == {
        "Idempotency-Key": KEY,
        "X-Request-ID": "request-1",
        "X-API-Key": "an-api-key",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"picopay-python/{__version__}",
        "Content-Type": "application/json",
    }


def test_a_key_is_made_with_the_call_and_stays() -> None:
    one = charges.create(user_id=1, amount=1, currency="USD")
    other = charges.create(user_id=1, amount=1, currency="USD")
    assert one.key is not None
    assert one.key != other.key
    assert request_of(one, CALLER, None) == request_of(one, CALLER, None)


def test_an_item_of_a_batch_has_its_key_from_the_start() -> None:
    items = [ChargeItem(1, "1.00", "USD"), ChargeItem(1, "1.00", "USD")]
    assert items[0].idempotency_key != items[1].idempotency_key
    assert charges.batch(items).body == charges.batch(items).body


def test_each_credential_goes_where_it_belongs() -> None:
    by_key = request_of(users.get(1), CALLER, None).headers
    by_admin = request_of(products.get_any("p"), CALLER, None).headers
    by_anybody = request_of(products.get("p"), CALLER, None).headers
    names = ["X-API-Key", "X-Admin-Secret"]
    assert [[name in headers for name in names] for headers in (by_key, by_admin, by_anybody)] == [
        [True, False],
        [False, True],
        [False, False],
    ]


@given(st.text(min_size=1, max_size=50, alphabet=st.characters(codec="utf-8")))
def test_a_name_stays_one_segment_of_its_path(name: str) -> None:
    escaped = path("/v1/transactions/{}", name)
    *before, last = escaped.split("/")
    assert before == ["", "v1", "transactions"]
    assert unquote(last) == name
    assert set("?#.% ") & set(last.replace("%", "")) == set()


@pytest.mark.parametrize("name", ["..", ".", "../admin", "a/b?c#d"])
def test_a_name_does_not_lead_elsewhere(name: str) -> None:
    target = request_of(users.get_account(name), CALLER, None).target
    assert target.startswith("/v1/accounts/")
    assert target.count("/") == 3
    assert "." not in target


def test_what_is_not_asked_for_is_not_in_the_query() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    call = charges.list_all(user_id=7, created_after=moment, limit=5).first
    assert request_of(call, CALLER, None).target == (
        "/v1/charges?user_id=7&created_after=2026-01-02T00%3A00%3A00%2B00%3A00&limit=5"
    )
    listed = request_of(products.list_all(q="ä&b", sort_desc=False).first, CALLER, None).target
    assert listed == (
        "/products?q=%C3%A4%26b&is_active=true&sort_by=created_at&sort_desc=false&limit=100"
    )


def test_a_page_is_the_same_call_with_a_cursor() -> None:
    listing = charges.list_all(user_id=7)
    assert listing.after(None) is listing.first
    target = request_of(listing.after("a+b"), CALLER, None).target
    assert target == "/v1/charges?user_id=7&limit=100&cursor=a%2Bb"


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nX-Admin: 1", "ü", "x" * 1001])
def test_a_header_that_would_not_arrive_as_it_is_is_refused(bad: str) -> None:
    keyed = charges.create(user_id=1, amount=1, currency="USD", idempotency_key=bad)
    with pytest.raises(ValueError, match="Idempotency-Key"):
        request_of(keyed, CALLER, None)
    with pytest.raises(ValueError, match="X-Request-ID"):
        request_of(users.get(1), CALLER, bad)
    with pytest.raises(ValueError, match="X-API-Key"):
        request_of(users.get(1), Caller("", bad, None), None)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("http://h", ""), ("https://h:1/", ""), ("http://h/pay/", "/pay"), ("http://[::1]:8000", "")],
)
def test_the_path_of_a_url_is_kept(url: str, prefix: str) -> None:
    assert caller_of(url, None, None).prefix == prefix


@pytest.mark.parametrize("url", ["h:8000", "ftp://h", "http://", "http://u:p@h", "http://h?a=1"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        caller_of(url, None, None)


@pytest.mark.parametrize(
    ("link", "cursor"),
    [
        ("", None),
        ('</products?limit=2&cursor=abc%3D>; rel="next"', "abc="),
        ('</products?cursor=x>; rel="prev", </products?cursor=y>; rel="next"', "y"),
        ("<https://elsewhere.example/products?cursor=z>; rel=next", "z"),
    ],
)
def test_the_next_link_gives_a_cursor_and_nothing_else(link: str, cursor: str | None) -> None:
    assert next_cursor(link) == cursor


def test_a_next_link_without_a_cursor_is_malformed() -> None:
    with pytest.raises(Malformed):
        next_cursor('</products>; rel="next"')


def test_a_page_that_leads_to_itself_ends_the_list() -> None:
    page = Page((1,), "again")
    assert checked(page, None) is page
    assert checked(page, "before") is page
    with pytest.raises(AnswerUnreadable):
        checked(page, "again")


def test_a_webhook_is_signed_over_its_own_bytes() -> None:
    transaction = NewTransaction("txn_1", "a", "b", "15.00", "INR")
    signed = request_of(transactions.send(transaction, signer=Signer("secret")), CALLER, None)
    plain = request_of(transactions.send(transaction), CALLER, None)
    assert signed.body == plain.body
    assert len(signed.headers["X-Signature"]) == 64
    assert "X-Signature" not in plain.headers
    assert "X-API-Key" not in signed.headers


def test_a_refund_without_an_amount_names_none() -> None:
    assert charges.refund("c").body == b"{}"
    assert charges.refund("c", amount=1, reason="late").body == b'{"amount":"1","reason":"late"}'


def test_an_unhealthy_server_is_an_answer() -> None:
    call = operations.health()
    assert call.is_answered_by(503)
    assert not orders.get("o").is_answered_by(503)
    body = b'{"status":"unhealthy","database":"disconnected","redis":"connected"}'
    assert call.read(Told(Answer(503, {}, body), None)).status == "unhealthy"

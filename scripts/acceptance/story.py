"""What the scenarios share: a client of the running server, and how they tell what they see.

A scenario says `given`, `when` and `then`; a `then` that does not hold ends it with FAIL and 1.
`PICOPAY_URL` names the server (http://localhost:8000), `PICOPAY_DATA_DIR` the folder that holds its
API key and secrets (.picopay), unless `APP_API_KEY`, `ADMIN_SECRET` and `PAYMENT_WEBHOOK_SECRET`
are set.
"""

import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

URL: Final = os.environ.get("PICOPAY_URL", "http://localhost:8000")
DATA_DIR: Final = Path(os.environ.get("PICOPAY_DATA_DIR", ".picopay"))
PATIENCE_SECONDS: Final = 60.0
TIMEOUT_SECONDS: Final = 30.0


class Answer(NamedTuple):
    status: int
    body: Any
    replayed: bool


def _secret(variable: str, file: str) -> str:
    return os.environ.get(variable) or (DATA_DIR / file).read_text().strip()


def call(method: str, path: str, body: object = None, *, url: str = URL, **headers: str) -> Answer:
    """`Idempotency_Key="…"` is the header of that name."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url + path, data, named, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as came:
            return _answer(came)
    except urllib.error.HTTPError as refused:
        return _answer(refused)


def _answer(came: Any) -> Answer:
    text = came.read()
    return Answer(came.status, json.loads(text or b"null"), "Idempotent-Replayed" in came.headers)


def keyed(method: str, path: str, body: object = None, **headers: str) -> Answer:
    """With the API key."""
    return call(method, path, body, X_API_Key=_secret("APP_API_KEY", "api_key"), **headers)


def admin(method: str, path: str, body: object = None) -> Answer:
    return call(method, path, body, X_Admin_Secret=_secret("ADMIN_SECRET", "admin_secret"))


def at_once(count: int, work: Callable[[int], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(count) as crowd:
        return list(crowd.map(work, range(count)))


def until(shown: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `shown` gives, once that is true, or at last."""
    give_up_at = time.monotonic() + seconds
    while not (value := shown()) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return value


def a_user(amount: str) -> int:
    user_id = uuid4().int >> 66
    keyed("POST", "/v1/users", {"id": user_id})
    body = {"amount": amount, "currency": "USD"}
    made = keyed("POST", f"/v1/users/{user_id}/deposits", body)
    then(made.status == 201, f"user {user_id} has {amount} USD")
    return user_id


def balance_of(user_id: int) -> float:
    return keyed("GET", f"/v1/users/{user_id}").body["balances"][0]["balance"]


def charge(user_id: int, amount: str, key: str | None = None) -> Answer:
    headers = {"Idempotency_Key": key} if key else {}
    body = {"user_id": user_id, "amount": amount, "currency": "USD"}
    return keyed("POST", "/charge", body, **headers)


def charges_of(user_id: int) -> list[Any]:
    return keyed("GET", f"/v1/charges?user_id={user_id}&limit=100").body["data"]


def a_product(stock: int, price: str = "25.00") -> str:
    made = admin(
        "POST", "/admin/products", {"name": f"Piece {uuid4()}", "price": price, "stock": stock}
    )
    then(made.status == 201, f"a product at {price}, {stock} in stock")
    return made.body["id"]


def stock_of(product: str) -> int:
    return admin("GET", f"/admin/products/{product}").body["stock"]


def order(product: str, quantity: int = 1, *, key: str | None = None, email: str = "") -> Answer:
    items = [{"product_id": product, "quantity": quantity}]
    body = {"user_email": email or f"{uuid4().hex}@example.com", "items": items}
    return call("POST", "/orders", body, Idempotency_Key=key or str(uuid4()))


def status_of(order_id: str) -> str:
    return call("GET", f"/orders/{order_id}").body["status"]


def told_of(order_id: str) -> list[str]:
    """The events of an order's timeline."""
    return [e["event"] for e in call("GET", f"/orders/{order_id}/events").body["data"]]


def payment_of(order_id: str) -> str | None:
    """The payment that the provider has begun for an order; None as long as it has not."""
    timeline = call("GET", f"/orders/{order_id}/events").body["data"]
    return next((e["detail"] for e in timeline if e["event"] == "payment.created"), None)


def call_back(order_id: str, payment_id: str, status: str, *, forged: bool = False) -> Answer:
    body = {"payment_id": payment_id, "order_id": order_id, "status": status}
    data = json.dumps(body).encode()
    secret = "forged" if forged else _secret("PAYMENT_WEBHOOK_SECRET", "payment_webhook_secret")
    signature = hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()
    return call("POST", "/payments/callback", data, X_Signature=signature)


def given(told: str) -> None:
    print(f"given {told}")


def when(told: str) -> None:
    print(f"when  {told}")


def then(holds: bool, told: str) -> None:
    print(f"{'  ok ' if holds else 'FAIL '} {told}")
    if not holds:
        sys.exit(1)


def statuses(answers: Sequence[Answer]) -> list[int]:
    return sorted(answer.status for answer in answers)


def passed() -> None:
    print("PASS")

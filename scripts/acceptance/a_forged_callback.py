"""Who does not know the secret cannot pay an order."""

from story import (
    a_product,
    call,
    call_back,
    given,
    order,
    passed,
    then,
    told_of,
    when,
)

given("an order")
order_id = order(a_product(1)).body["id"]

when("somebody calls back a success with a signature of another secret, or with none")
forged = call_back(order_id, "payment-of-a-thief", "success", forged=True)
body = {"payment_id": "payment-of-a-thief", "order_id": order_id, "status": "success"}
unsigned = call("POST", "/payments/callback", body)
then(forged.status == unsigned.status == 401, "both are refused with 401")
then(forged.body["code"] == "signature-invalid", "as signature-invalid")
timeline = call("GET", f"/orders/{order_id}/events").body["data"]
then(
    "payment-of-a-thief" not in {entry["detail"] for entry in timeline},
    "and the order has not heard of it",
)
then("order.placed" in told_of(order_id), "it goes its way")
passed()

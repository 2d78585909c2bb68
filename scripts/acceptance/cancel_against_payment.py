"""Customers cancel while payments succeed: every order ends as one of the two, with its stock."""

from story import (
    Answer,
    a_product,
    at_once,
    call,
    call_back,
    given,
    order,
    passed,
    payment_of,
    status_of,
    stock_of,
    then,
    until,
    when,
)

ORDERS = 10

given(f"{ORDERS} orders whose payment is under way")
product = a_product(ORDERS)
orders = [order(product).body["id"] for _ in range(ORDERS)]
payments = [until(lambda o=order_id: payment_of(o)) for order_id in orders]

when("each is canceled and paid at the same moment")


def both(number: int) -> Answer:
    order_id = orders[number // 2]
    if number % 2:
        return call("POST", f"/orders/{order_id}/cancel")
    return call_back(order_id, payments[number // 2], "success")


answers = at_once(2 * ORDERS, both)
then(all(a.status == 200 for a in answers[::2]), "every callback is answered 200")
then({a.status for a in answers[1::2]} <= {200, 409}, "every customer is told 200 or 409")
ends = [status_of(order_id) for order_id in orders]
then(set(ends) <= {"paid", "canceled"}, "every order is paid or canceled")
agreed = [
    (a.status == 200) == (end == "canceled") for a, end in zip(answers[1::2], ends, strict=True)
]
refunded = ends.count("canceled")
then(all(agreed), f"as its customer was told: {ends.count('paid')} paid, {refunded} canceled")
then(stock_of(product) == refunded, "the stock is that of the canceled ones")
passed()

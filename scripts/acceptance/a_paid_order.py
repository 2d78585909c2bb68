"""A payment succeeds: the order is paid once, and nothing that comes later changes that."""

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
    statuses,
    stock_of,
    then,
    told_of,
    until,
    when,
)

ATTEMPTS = 10  # one of the fake provider's payments in five fails

given("an order that its provider was asked to be paid for")
product = a_product(50)
order_id, payment_id = "", ""
answers: list[Answer] = []
for _ in range(ATTEMPTS):
    order_id = order(product).body["id"]
    payment_id = until(lambda o=order_id: payment_of(o))

    when("the provider calls back that it succeeded, five times at once")
    answers = at_once(5, lambda _, o=order_id, p=payment_id: call_back(o, p, "success"))
    if status_of(order_id) == "paid":
        break
    print("      (it had failed before: another order)")
then(statuses(answers) == [200] * 5, "each is answered 200")
then(status_of(order_id) == "paid", "the order is paid")
then(told_of(order_id).count("order.paid") == 1, "once")
left = stock_of(product)

when("the provider says that it failed, and the customer cancels")
then(call_back(order_id, payment_id, "failed").status == 200, "the provider is answered 200")
refused = call("POST", f"/orders/{order_id}/cancel")
then(refused.status == 409, "the customer is told 409")
then(refused.body["code"] == "order-not-cancelable", "as order-not-cancelable")
then(status_of(order_id) == "paid", "the order stays paid")
then(stock_of(product) == left, "its piece stays sold")
passed()

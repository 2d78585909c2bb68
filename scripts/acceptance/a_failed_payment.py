"""A payment fails: the order is canceled and its stock returned, once, whatever is said later."""

from story import (
    Answer,
    a_product,
    at_once,
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

ATTEMPTS = 3  # the fake provider may be faster than this scenario

given("an order of three pieces whose provider has not said yet how its payment ends")
product = a_product(9)
order_id, payment_id, before = "", "", 0
answers: list[Answer] = []
for _ in range(ATTEMPTS):
    order_id = order(product, 3).body["id"]
    payment_id = until(lambda o=order_id: payment_of(o))
    before = stock_of(product)

    when("the provider calls back that it failed, five times at once")
    answers = at_once(5, lambda _, o=order_id, p=payment_id: call_back(o, p, "failed"))
    if status_of(order_id) == "canceled":
        break
    print("      (it had been paid before: another order)")
then(statuses(answers) == [200] * 5, "each is answered 200")
then(status_of(order_id) == "canceled", "the order is canceled")
then(stock_of(product) == before + 3, "three pieces are back, not fifteen")

when("the provider calls back that it succeeded after all")
then(call_back(order_id, payment_id, "success").status == 200, "it is answered 200")
then(status_of(order_id) == "canceled", "the order stays canceled")
then(until(lambda: "refund.requested" in told_of(order_id)), "and the money is asked back")
then(told_of(order_id).count("refund.requested") == 1, "once")
then(stock_of(product) == before + 3, "the stock is as it was")
passed()

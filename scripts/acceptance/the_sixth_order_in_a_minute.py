"""An e-mail may place five orders in a minute; asking again for one of them costs nothing."""

from uuid import uuid4

from story import a_product, given, order, passed, statuses, then, when

given("a customer who has placed five orders within a minute")
product, email = a_product(20), f"{uuid4().hex}@example.com"
keys = [str(uuid4()) for _ in range(5)]
placed = [order(product, key=key, email=email) for key in keys]
then(statuses(placed) == [201] * 5, "all five are answered 201")

when("the customer orders a sixth time")
sixth = order(product, email=email)
then(sixth.status == 429, "it is refused with 429")
then(sixth.body["code"] == "rate-limited", "as rate-limited")
then(order(product, email=email.upper()).status == 429, "in capitals too")

when("the first order is sent again, ten times")
again = [order(product, key=keys[0], email=email) for _ in range(10)]
then(statuses(again) == [201] * 10, "it is answered 201 each time")

when("another customer orders")
then(order(product).status == 201, "that is answered 201")
passed()

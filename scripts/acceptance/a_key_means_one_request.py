"""The same key for another request is refused, for charges and for orders."""

from uuid import uuid4

from story import a_product, a_user, balance_of, charge, given, order, passed, stock_of, then, when

given("a charge of 10.00, and an order of one piece")
user, product, key = a_user("100.00"), a_product(5), str(uuid4())
email = f"{key}@example.com"
charge(user, "10.00", key)
first = order(product, key=key, email=email)
then(first.status == 201, "both are made")

when("the charge's key is sent with another amount")
other = charge(user, "20.00", key)
then(other.status == 422, "it is refused with 422")
then(other.body["mismatched_fields"] == ["amount"], "which names the amount")
then(balance_of(user) == 90, "nothing more is charged")

when("the order is sent again, and then another under its key")
again = order(product, key=key, email=email)
then(again.status == 201, "the repeat is answered 201")
then(again.body == first.body and again.replayed, "with the first answer, as a replay")
conflict = order(product, 2, key=key, email=email)
then(conflict.status == 409, "the other order is refused with 409")
then(conflict.body["code"] == "idempotency-key-reused", "as idempotency-key-reused")
then(stock_of(product) == 4, "one piece has left the stock")
passed()

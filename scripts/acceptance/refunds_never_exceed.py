"""Refunds of one charge race: together they give back the charge, and never more."""

from uuid import uuid4

from story import a_user, at_once, balance_of, charge, given, keyed, passed, statuses, then, when

given("a charge of 50.00 of a user with 100.00 USD")
user = a_user("100.00")
made = charge(user, "50.00").body["transaction"]["id"]
path = f"/v1/charges/{made}/refunds"

when("eight refunds of 10.00, each with a key of its own, are sent at the same moment")
answers = at_once(
    8, lambda _: keyed("POST", path, {"amount": "10.00"}, Idempotency_Key=str(uuid4()))
)
then(statuses(answers) == [201] * 5 + [409] * 3, "five are made, three refused with 409")
then(balance_of(user) == 100, "the user has 100.00 again")
passed()

"""A charge that was refused wrote nothing: its key may be used again."""

from uuid import uuid4

from story import a_user, charge, charges_of, given, keyed, passed, then, when

given("a user with 10.00 USD")
user, key = a_user("10.00"), str(uuid4())

when("30.00 are charged with a key")
refused = charge(user, "30.00", key)
then(refused.status == 400, "it is refused")
then(not charges_of(user), "nothing is on record")

when("50.00 more are deposited, and the same request is sent again")
keyed("POST", f"/v1/users/{user}/deposits", {"amount": "50.00", "currency": "USD"})
again = charge(user, "30.00", key)
then(again.status == 200, "it succeeds")
then(not again.replayed, "and is no replay")
then(again.body["new_balance"] == 30, "the balance is 30.00")
passed()

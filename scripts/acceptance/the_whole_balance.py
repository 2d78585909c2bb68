"""A charge that takes all: its duplicates are never told that the balance does not cover it."""

from uuid import uuid4

from story import a_user, at_once, balance_of, charge, given, passed, statuses, then, when

given("a user with exactly 100.00 USD")
user = a_user("100.00")

when("ten charges of 100.00 with one key are sent at the same moment")
key = str(uuid4())
answers = at_once(10, lambda _: charge(user, "100.00", key))
then(statuses(answers) == [200] * 10, "all ten are answered 200, none 400")
then(balance_of(user) == 0, "the balance is 0.00")

when("a charge with another key follows")
refused = charge(user, "0.01", str(uuid4()))
then(refused.status == 400, "it is refused")
then(refused.body["code"] == "insufficient-balance", "as insufficient-balance")
passed()

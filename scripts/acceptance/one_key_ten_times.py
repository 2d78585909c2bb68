"""Ten concurrent charges with one key: one record, one deduction, ten equal answers."""

from uuid import uuid4

from story import (
    a_user,
    at_once,
    balance_of,
    charge,
    charges_of,
    given,
    passed,
    statuses,
    then,
    when,
)

given("a user with 1000.00 USD")
user = a_user("1000.00")

when("ten charges of 100.00 with one idempotency key are sent at the same moment")
key = str(uuid4())
answers = at_once(10, lambda _: charge(user, "100.00", key))

then(statuses(answers) == [200] * 10, "all ten are answered 200")
then(all(answer.body == answers[0].body for answer in answers), "all ten answers are equal")
then(sum(answer.replayed for answer in answers) == 9, "nine of them say that they are replays")
then(balance_of(user) == 900, "the balance is 900.00")
then(len(charges_of(user)) == 1, "one charge is on record")
passed()

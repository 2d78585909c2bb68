"""Many charges race for one balance: as many succeed as it covers, and not one more."""

from story import a_user, at_once, balance_of, charge, given, passed, statuses, then, when

given("a user with 100.00 USD")
user = a_user("100.00")

when("twenty charges of 10.00 are sent at the same moment")
answers = at_once(20, lambda _: charge(user, "10.00"))
then(statuses(answers) == [200] * 10 + [400] * 10, "ten succeed, ten are refused")
then(balance_of(user) == 0, "the balance is 0.00")
passed()

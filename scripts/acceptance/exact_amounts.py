"""Money is exact: no cent appears or disappears, and what cannot be expressed is refused."""

from story import a_user, balance_of, charge, given, passed, then, when

given("a user with 0.30 USD")
user = a_user("0.30")

when("0.10 is charged three times")
for _ in range(3):
    then(charge(user, "0.10").status == 200, "it succeeds")
then(balance_of(user) == 0, "the balance is 0.00")

when("amounts are sent that dollars cannot express")
for amount in ("0.001", "0", "-1", "NaN", "1e300"):
    then(charge(user, amount).status == 422, f"{amount} is refused with 422")
passed()

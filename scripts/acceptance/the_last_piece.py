"""Many customers want the last piece: one gets it, and duplicates of that order are told so."""

from uuid import uuid4

from story import a_product, at_once, given, order, passed, statuses, stock_of, then, when

given("a product of which one piece is left")
product = a_product(1)

when("ten customers order it at the same moment, each of them twice under one key")
keys = [str(uuid4()) for _ in range(10)]
answers = at_once(
    20, lambda n: order(product, key=keys[n % 10], email=f"{keys[n % 10]}@example.com")
)
then(statuses(answers) == [201] * 2 + [409] * 18, "one customer is answered 201, both times")
sold = {answer.body["id"] for answer in answers if answer.status == 201}
then(len(sold) == 1, "with one order")
codes = {answer.body["code"] for answer in answers if answer.status == 409}
then(codes == {"insufficient-stock"}, "the others are told insufficient-stock")
then(stock_of(product) == 0, "no piece is left")
passed()

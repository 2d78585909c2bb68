"""A transaction webhook is sent ten times at once: one record, processed once."""

from uuid import uuid4

from story import at_once, call, given, keyed, passed, statuses, then, until, when

given("a transaction of 1500.00 INR that PicoPay has not heard of")
name = uuid4().hex
body = {
    "transaction_id": f"txn_{name}",
    "source_account": f"payer_{name}",
    "destination_account": f"payee_{name}",
    "amount": 1500,
    "currency": "INR",
}
path = f"/v1/transactions/txn_{name}"
then(call("GET", path).status == 404, "asking for it is answered 404")

when("its webhook is sent ten times at the same moment")
answers = at_once(10, lambda _: call("POST", "/v1/webhooks/transactions", body))
then(statuses(answers) == [202] * 10, "each is answered 202")
shown = call("GET", path).body
then(shown["status"] in {"PROCESSING", "PROCESSED"}, f"it is {shown['status']}")

when("it is sent once more, with another amount")
other = call("POST", "/v1/webhooks/transactions", {**body, "amount": 9999})
then(other.status == 202, "that is answered 202")
then(call("GET", path).body["amount"] == 1500, "and the first one stands")

when("its delay is over")
then(until(lambda: call("GET", path).body["status"] == "PROCESSED"), "it is PROCESSED")
payee = keyed("GET", f"/v1/accounts/external:payee_{name}").body["balances"]
then(payee == [{"currency": "INR", "balance": 1500}], "the payee has 1500.00 INR, once")
passed()
